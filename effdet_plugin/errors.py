"""Errors that a caller can cause. The message is one line: what is wrong, where, what to do."""

import shlex
import sys
from contextlib import suppress
from pathlib import Path


def escaped(text: str) -> str:
    r"""Return a text with what cannot be printed as ``\x1b``: no name can act on a terminal.

    Beside control characters that is what nobody sees (``\ufeff``), or what changes the direction
    of text or begins a line.
    """
    return ''.join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def pip_install(*packages: str) -> str:
    """Return the command line that installs packages where this program runs."""
    python = Path(sys.executable or 'python')
    with suppress(ValueError, OSError):  # it lies elsewhere; there is no such folder any more
        python = python.relative_to(Path.cwd())
    return shlex.join([str(python), '-m', 'pip', 'install', *packages])


class UserError(Exception):
    """Base class of all mistakes of a caller; tools print ``error: ...`` and exit with 2."""

    def __str__(self) -> str:
        """Return the line, control characters escaped."""
        return escaped(super().__str__())


class ConfigError(UserError, ValueError):
    """A config, an option, an argument or a size that cannot be used."""


class CheckpointError(UserError):
    """Weights that are missing, damaged, unsafe to read or of another network."""


class WriteError(UserError, OSError):
    """A file or folder that cannot be written: no space, no permission, something in the way."""


class DatasetError(UserError):
    """Images or annotations that cannot be used."""


class InstallError(UserError):
    """Installed packages that do not fit together."""
