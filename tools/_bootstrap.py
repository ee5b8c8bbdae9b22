"""Start-up code of all tools; imported by tools only, before any large package.

    #!/usr/bin/env python3
    from _bootstrap import run

    def main() -> None:
        args = parse_args()                       # --help and wrong arguments need no torch
        from effdet_plugin.inference import ...   # large packages are imported after it
        ...

    if __name__ == '__main__':
        run(main)

Importing it makes the clone's own ``effdet_plugin`` importable. If the Python that runs the tool
lacks packages, the tool is restarted with the clone's ``.venv``. The file has the syntax of Python
3.8, so that an old Python can print the error message.
"""

import os
import sys
from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINIMUM_PYTHON = (3, 10)
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as in shells
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE


def run(main: 'Callable[[], object]') -> None:
    """Run a tool and exit with its exit code.

    A :class:`effdet_plugin.errors.UserError` is printed as ``error: <its line>`` on stderr, with
    exit code 2; a closed pipe (``| head``) and Ctrl-C print nothing. Other exceptions are raised.

    Args:
        main: The tool; an int that it returns is the exit code, anything else means 0.
    """
    _load_weights_only()
    try:
        result = main()
        sys.stdout.flush()  # a closed pipe raises its error here, inside the try
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Python flushes stdout once more at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
    except Exception as error:
        if not is_user_error(error):
            raise
        sys.exit(fail(str(error)))
    sys.exit(result if isinstance(result, int) else 0)


def make_parser(description: 'str | None') -> ArgumentParser:
    """Make a parser whose help begins with a tool's docstring, line breaks kept."""
    return ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)


def add_config_options(parser: ArgumentParser) -> None:
    """Add the options that change a config: ``--image-size`` and ``--cfg-options``."""
    parser.add_argument('--image-size', help='input size of the network: 640 or WIDTHxHEIGHT')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings of the config',
    )


def add_launcher(parser: ArgumentParser) -> None:
    """Add mmdet's options of distributed runs."""
    launchers = ('none', 'pytorch', 'slurm', 'mpi')
    parser.add_argument('--launcher', choices=launchers, default='none', help='job launcher')
    # torch.distributed.launch passes it; torchrun sets the variable itself.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=SUPPRESS)


def is_user_error(error: BaseException) -> bool:
    """Return whether this is a `UserError`, also if importing the package has failed."""
    errors = sys.modules.get('effdet_plugin.errors')
    return errors is not None and isinstance(error, errors.UserError)


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
    if not {'-h', '--help'} & set(sys.argv[1:]):
        sys.exit(fail(f'{reason}; create an environment with: bash {ROOT / "tools" / "setup.sh"}'))


def _prefer_own_package() -> None:
    """Put the clone first in ``sys.path``, and ``tools`` last: its module names are common ones."""
    tools = str(ROOT / 'tools')
    sys.path[:] = [str(ROOT), *(path for path in sys.path if path not in (tools, str(ROOT))), tools]


def _load_weights_only() -> None:
    """Set PyTorch's switch, for this process and its workers, that no load of weights runs code."""
    os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None)
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'


_restart_in_venv()
_prefer_own_package()
