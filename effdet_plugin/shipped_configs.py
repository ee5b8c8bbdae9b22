"""Our configs by name: ``d0_coco`` is ``configs/efficientdet/d0_coco.py``, wherever that lies.

Imports neither torch nor mmdet: command lines are parsed with it.
"""

from difflib import get_close_matches
from functools import cache
from pathlib import Path

from effdet_plugin.errors import ConfigError

PREFIX = 'effdet_plugin::'  # in `_base_` of other projects' configs
_PACKAGE = Path(__file__).resolve().parent
# In a wheel the configs lie inside the package, in a clone beside it.
ROOT = _PACKAGE if (_PACKAGE / 'configs').is_dir() else _PACKAGE.parent


@cache
def named_configs() -> dict[str, Path]:
    """Return the path of each of our configs by its name, without those that are only bases."""
    return {path.stem: path for path in sorted((ROOT / 'configs').glob('*/[!_]*.py'))}


def is_config(text: Path | str) -> bool:
    """Return whether a text is the path of a config (``.py``) or the name of one of ours."""
    return str(text).endswith('.py') or str(text) in named_configs()


def config_path(text: Path | str) -> Path:
    """Return the path of a config, which may be given by its name; a file of that name wins."""
    path = Path(text)
    return path if path.is_file() else named_configs().get(str(text), path)


def path(name: str) -> Path:
    """Return the file of one of our configs.

    Args:
        name: ``'d2_coco'``; ``'d2'`` for the same; or as in a ``_base_``,
            ``'effdet_plugin::efficientdet/d2_coco.py'``, also of one that is only a base.

    Raises:
        ConfigError: There is no such config; the message names the most similar one.
    """
    names = named_configs()
    if name in names or f'{name}_coco' in names:
        return names.get(name) or names[f'{name}_coco']
    folder, below = ROOT / 'configs', name.removeprefix(PREFIX)
    file = (folder / below).resolve()
    if file.suffix == '.py' and file.is_file() and folder in file.parents:
        return file
    raise ConfigError(
        f'{name}: no config of effdet_plugin has this name{nearest(Path(below).stem)}'
    )


def nearest(word: str) -> str:
    """Return ``; did you mean 'd0_coco'?`` for a word like it, '' if there is none."""
    names = sorted(named_configs())
    found = [name for name in names if name == f'{word}_coco'] or get_close_matches(word, names, 1)
    return f'; did you mean {found[0]!r}?' if found else ''
