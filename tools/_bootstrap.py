"""Start-up code of all tools; imported by tools only, before any large package.

    #!/usr/bin/env python3
    from _bootstrap import command, run

    main = command('train')                       # of effdet_plugin/cli, as the console has it

    if __name__ == '__main__':
        run(main)

Importing it makes the clone's own ``effdet_plugin`` importable. If the Python that runs the tool
lacks packages, the tool is restarted with the clone's ``.venv``. The file has the syntax of Python
3.8, so that an old Python can print the error message.
"""

import ctypes
import os
import signal
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINIMUM_PYTHON = (3, 10)
EXIT_USER_ERROR = 2
_PR_SET_PDEATHSIG = 1  # of prctl (linux/prctl.h)


def fail(message: str) -> int:
    """Print ``error: message`` on stderr and return the exit code of user errors."""
    print(f'error: {message}', file=sys.stderr)
    return EXIT_USER_ERROR


def venv_python(root: Path) -> Path:
    """Return the path of the Python in the clone's virtual environment."""
    if os.name == 'nt':
        return root / '.venv' / 'Scripts' / 'python.exe'
    return root / '.venv' / 'bin' / 'python'


def unfit() -> str:
    """Return the reason why this Python cannot run the tools; '' if it can."""
    if sys.version_info < MINIMUM_PYTHON:
        return f'Python {sys.version_info[0]}.{sys.version_info[1]} is too old (3.10 is needed)'
    missing = [name for name in ('torch', 'mmdet') if find_spec(name) is None]
    return f'{" and ".join(missing)} not installed for {sys.executable}' if missing else ''


def _started_as_tool() -> bool:
    return bool(sys.argv) and Path(sys.argv[0]).resolve().parent == ROOT / 'tools'


def _restart_in_venv() -> None:
    """Replace this process by the same command in ``.venv``, or print how to create it."""
    reason = unfit()
    if not reason or not _started_as_tool():
        return
    python = venv_python(ROOT)
    if python.exists() and Path(sys.prefix) != ROOT / '.venv':
        os.execv(python, [str(python), *sys.argv])
    is_too_old = sys.version_info < MINIMUM_PYTHON  # also for the help: it is in the package
    if is_too_old or not {'-h', '--help'} & set(sys.argv[1:]):
        sys.exit(fail(f'{reason}; create an environment with: bash {ROOT / "tools" / "setup.sh"}'))


def _prefer_own_package() -> None:
    """Put the clone first in ``sys.path``, and ``tools`` last: its module names are common ones."""
    tools = str(ROOT / 'tools')
    sys.path[:] = [str(ROOT), *(path for path in sys.path if path not in (tools, str(ROOT))), tools]


def _end_with_torchrun() -> None:
    """End this process when torchrun ends, also by a kill while the packages are imported.

    A training asks for it again (engine/one_run.py): it may be started by other programs.
    """
    if 'TORCHELASTIC_RUN_ID' in os.environ and sys.platform.startswith('linux'):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        parent = os.environ.get('EFFDET_TORCHRUN', '')  # set by _torchrun.py
        if parent and os.getppid() != int(parent):  # it has ended before this line
            sys.exit(EXIT_USER_ERROR)


_restart_in_venv()
_prefer_own_package()
_end_with_torchrun()
import_module('effdet_plugin_command')  # parts are registered when a command needs them

from effdet_plugin.cli.main import command  # noqa: E402
from effdet_plugin.cli.model_words import add_model, parse_model_args  # noqa: E402
from effdet_plugin.cli.options import (  # noqa: E402
    add_config_options,
    add_launcher,
    add_tiles,
    make_parser,
    tiles_of,
)
from effdet_plugin.cli.start import EXIT_INTERRUPTED, run  # noqa: E402

__all__ = [
    'EXIT_INTERRUPTED',
    'ROOT',
    'add_config_options',
    'add_launcher',
    'add_model',
    'add_tiles',
    'command',
    'make_parser',
    'parse_model_args',
    'run',
    'tiles_of',
]
