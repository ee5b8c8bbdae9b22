"""The words ``[CONFIG] MODEL`` of a command line, one parser for all commands."""

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from effdet_plugin.cli.start import fail
from effdet_plugin.errors import ConfigError
from effdet_plugin.shipped_configs import is_config, nearest


def add_model(parser: ArgumentParser, *, several: bool = False) -> None:
    """Add the positionals ``[CONFIG] MODEL``; parse them by `parse_model_args`.

    Args:
        parser: Positionals before and after these are its command's own.
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
    parser: ArgumentParser, arguments: list[str] | None = None, needs_config: bool = False
) -> Namespace:
    """Parse a command line with the positionals of `add_model`; options may stand anywhere.

    A first positional that ends in ``.py`` or names a config is CONFIG, anything else MODEL. What
    cannot be meant is printed as one line, and ends the program with 2.

    Args:
        parser: Its last positional may have ``nargs='+'``: the images of a pattern that the shell
            has expanded.
        arguments: The words of the command line; None: the program's.
        needs_config: The command cannot use the config that a model carries.

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


def check_is_there(path: str | Path | None) -> None:
    """Check that a file or folder exists: who reads it says so after seconds of imports.

    Args:
        path: None, and ``'none'`` as MODEL, need no file.

    Raises:
        ConfigError: It does not.
    """
    if path is not None and str(path) != 'none' and not os.path.exists(path):
        raise ConfigError(f'{path}: no such file or folder')


def _shift(args: Namespace, names: list[str]) -> None:
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


def _model_problem(config: str | None, model: str | list[str], needs_config: bool) -> str:
    """Return what is wrong with CONFIG and MODEL; '' if they can be meant."""
    models = model if isinstance(model, list) else [model]
    configs = [word for word in models if is_config(word)]
    if config is not None and not is_config(config):
        if configs:
            return f'CONFIG comes before MODEL: {configs[0]} {config}'
        return f'{config}: neither a config file (.py) nor the name of one{nearest(config)}'
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
    if config is None and not Path(first).exists() and (hint := nearest(first)):
        return f'{first}: no such file, nor the name of a config{hint}'
    return ''
