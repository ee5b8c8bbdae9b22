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
from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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
    """Add the options that change a config: its image size, how images meet it, any other key."""
    parser.add_argument('--image-size', help='input size of the network: 640 or WIDTHxHEIGHT')
    # One of the --cfg-options, so that every tool that takes those takes it.
    parser.add_argument(
        '--resize',
        dest='cfg_options',
        action='append',
        type='resize_mode={}'.format,
        metavar='MODE',
        help='how an image is resized to that size: letterbox (fit in and pad; the default of most '
        "configs), stretch (OpenCV's), stretch_mediapipe (as MediaPipe Tasks sample it)",
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings of the config',
    )


def add_model(parser: ArgumentParser, *, several: bool = False) -> None:
    """Add the positionals ``[CONFIG] MODEL``; parse them by `parse_model_args`.

    Args:
        parser: Positionals before and after these are its tool's own.
        several: Take one or more models; ``model`` is a list then.
    """
    parser.add_argument(
        'config',
        nargs='?',
        metavar='CONFIG',
        help='config file, or the name of one such as d0_coco; may be left out where MODEL carries '
        'its config: a checkpoint of ours, an exported file',
    )
    parser.add_argument(
        'model',
        nargs='+' if several else None,
        metavar='MODEL',
        help="checkpoint (.pth), exported file, or 'none' for random weights",
    )


def parse_model_args(
    parser: ArgumentParser, arguments: 'list[str] | None' = None, needs_config: bool = False
) -> Namespace:
    """Parse a command line with the positionals of `add_model`; options may stand anywhere.

    A first positional that ends in ``.py`` or names a config is CONFIG, anything else MODEL. What
    cannot be meant is printed as one line, and ends the program with 2.

    Args:
        parser: Its last positional may have ``nargs='+'``: the images of a pattern that the shell
            has expanded.
        arguments: The words of the command line; None: the program's.
        needs_config: The tool cannot use the config that a model carries.

    Returns:
        ``config``: path or name, or None; ``model``: a str, or with ``several`` a list of them.
    """
    args = parser.parse_intermixed_args(arguments)
    positionals = parser._get_positional_actions()
    # argparse gives `config` the first word as soon as there is one more than it needs.
    if args.config is not None and not is_config(args.config) and positionals[-1].nargs == '+':
        _shift(args, [action.dest for action in positionals])
    if problem := _model_problem(args.config, args.model, needs_config):
        sys.exit(fail(problem))
    return args


def _shift(args: Namespace, names: 'list[str]') -> None:
    """Give the words of `config` and what follows to those after it; the last takes several."""
    names = names[names.index('model') :]
    values = [getattr(args, name) for name in names]
    words = [args.config, *(w for v in values for w in (v if isinstance(v, list) else [v]))]
    swapped = next((word for word in words if is_config(word)), None)
    if swapped is not None:
        sys.exit(fail(f'CONFIG comes before MODEL: {swapped} {words[0]}'))
    args.config = None
    for name in names[:-1]:
        setattr(args, name, words.pop(0))
    setattr(args, names[-1], words)


def is_config(word: str) -> bool:
    """Return whether a word of a command line is a config's path or the name of one of ours."""
    return word.endswith('.py') or word in _config_names()


def _config_names() -> 'list[str]':
    return sorted(path.stem for path in (ROOT / 'configs').glob('*/[!_]*.py'))


def _model_problem(config: 'str | None', model: 'str | list[str]', needs_config: bool) -> str:
    """Return what is wrong with CONFIG and MODEL; '' if they can be meant."""
    models = model if isinstance(model, list) else [model]
    configs = [word for word in models if is_config(word)]
    if config is not None and not is_config(config):
        if configs:
            return f'CONFIG comes before MODEL: {configs[0]} {config}'
        return f'{config}: neither a config file (.py) nor the name of one{_nearest(config)}'
    if configs and config is None and len(models) == 1:
        return (
            f'{configs[0]} is a config: give MODEL after it (a checkpoint or an exported file; '
            "'none' for random weights)"
        )
    if configs:
        return f'MODEL {configs[0]}: is a config; give a checkpoint (.pth) or an exported file'
    if config is None and 'none' in models:
        return 'MODEL none (random weights) needs a CONFIG before it, such as d0_coco'
    if config is None and needs_config:
        return f'give a CONFIG before MODEL {models[0]}, such as d0_coco'
    first = models[0]
    if config is None and not Path(first).exists() and (hint := _nearest(first)):
        return f'{first}: no such file, nor the name of a config{hint}'
    return ''


def _nearest(word: str) -> str:
    names = _config_names()
    found = [name for name in names if name == f'{word}_coco'] or get_close_matches(word, names, 1)
    return f'; did you mean {found[0]!r}?' if found else ''


def add_tiles(parser: ArgumentParser) -> None:
    """Add the options of tiled inference; `tiles_of` reads them."""
    add = parser.add_argument
    add(
        '--tiles',
        metavar='WxH',
        help="cut each image into overlapping tiles: a grid, columns x rows (2x2), or the tiles' "
        'size in its pixels (640, 640x480, 1000px)',
    )
    add('--tile-overlap', type=float, metavar='SHARE', help='of neighbouring tiles (default: 0.2)')
    add('--tile-merge', choices=('nms', 'wbf'), help='merge tiles by NMS (default) or fusion')
    add('--tiles-only', action='store_true', help='leave out the view of the whole image')


def tiles_of(args: Namespace) -> Any:
    """Return the tiles of a command line, None without; takes their options out of ``args``."""
    text, overlap, merge, only = (
        vars(args).pop(name) for name in ('tiles', 'tile_overlap', 'tile_merge', 'tiles_only')
    )
    if text is None:
        if overlap is not None or merge or only:
            sys.exit(fail('--tile-overlap, --tile-merge and --tiles-only need --tiles'))
        return None
    from effdet_plugin.inference.tiles import Tiles

    return Tiles.parse(text, overlap, whole=not only, merge=merge or 'nms')


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
