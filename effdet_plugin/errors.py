"""Errors that a caller can cause. The message is one line: what is wrong, where, what to do."""

import re

# Control characters, and those that change the direction of text or begin a line.
_UNPRINTABLE = re.compile('[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]')


def escaped(text: str) -> str:
    r"""Return a text with control characters as ``\x1b``: no name can act on a terminal."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


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
