"""Options that several commands share."""

from argparse import SUPPRESS, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from typing import TYPE_CHECKING, NoReturn

from effdet_plugin.errors import ConfigError
from effdet_plugin.other_names import option_for

if TYPE_CHECKING:
    from effdet_plugin.inference.tiles import Tiles


def make_parser(description: str | None) -> ArgumentParser:
    """Make a parser whose help begins with a command's docstring, line breaks kept."""
    return Parser(description=description, formatter_class=RawDescriptionHelpFormatter)


class Parser(ArgumentParser):
    """argparse's, which names the option that is meant by another program's."""

    def error(self, message: str) -> NoReturn:
        """Print the message as one line, and end the program with 2."""
        head, _, words = message.partition('unrecognized arguments: ')
        if not head and words:
            pairs = (
                (word, option_for(word, self._option_string_actions)) for word in words.split()
            )
            hints = [f'{meant} for {word}' for word, meant in pairs if word[0] == '-' and meant]
            message += f' (did you mean {", ".join(hints)}?)' if hints else ''
        self.exit(2, f'error: {message}; {self.prog} --help lists all options\n')


def add_config_options(parser: ArgumentParser) -> None:
    """Add the options that change a config: its image size, how images meet it, any other key."""
    parser.add_argument('--image-size', help='input size of the network: 640 or WIDTHxHEIGHT')
    # One of the --cfg-options, so that every command that takes those takes it.
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


def add_tiles(parser: ArgumentParser) -> None:
    """Add the options of tiled inference; `tiles_of` reads them."""
    add = parser.add_argument
    add(
        '--tiles',
        metavar='WxH[:SHARE]',
        help="cut each image into overlapping tiles: a grid, columns x rows (2x2), or the tiles' "
        'size in its pixels (640, 640x480, 1000px), and how much of it neighbours share (640:0.3)',
    )
    add('--tile-overlap', type=float, metavar='SHARE', help='of neighbouring tiles (default: 0.2)')
    add('--tile-merge', choices=('nms', 'wbf'), help='merge tiles by NMS (default) or fusion')
    add('--tiles-only', action='store_true', help='leave out the view of the whole image')


def tiles_of(args: Namespace) -> 'Tiles | None':
    """Return the tiles of a command line, None without; takes their options out of ``args``."""
    text, overlap, merge, only = (
        vars(args).pop(name) for name in ('tiles', 'tile_overlap', 'tile_merge', 'tiles_only')
    )
    if text is None:
        if overlap is not None or merge or only:
            raise ConfigError('--tile-overlap, --tile-merge and --tiles-only need --tiles')
        return None
    from effdet_plugin.inference.tiles import Tiles

    return Tiles.parse(text, overlap, whole=not only, merge=merge or 'nms')


def add_launcher(parser: ArgumentParser) -> None:
    """Add mmdet's options of distributed runs."""
    launchers = ('none', 'pytorch', 'slurm', 'mpi')
    parser.add_argument('--launcher', choices=launchers, default='none', help='job launcher')
    # torch.distributed.launch passes it; torchrun sets the variable itself.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=SUPPRESS)
