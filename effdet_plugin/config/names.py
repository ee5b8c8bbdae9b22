"""Names of our configs: ``d0_coco`` for the path of ``configs/efficientdet/d0_coco.py``."""

from functools import cache
from pathlib import Path

import effdet_plugin

_PACKAGE = Path(effdet_plugin.__file__).resolve().parent
# In a wheel the configs lie inside the package, in a clone beside it.
_FOLDERS = (_PACKAGE / 'configs', _PACKAGE.parent / 'configs')


@cache
def named_configs() -> dict[str, Path]:
    """Return the path of each of our configs by its name, without those that are only bases."""
    paths = [path for folder in _FOLDERS for path in sorted(folder.glob('*/[!_]*.py'))]
    return {path.stem: path for path in reversed(paths)}


def is_config(text: Path | str) -> bool:
    """Return whether a text is the path of a config (``.py``) or the name of one of ours."""
    return str(text).endswith('.py') or str(text) in named_configs()


def config_path(text: Path | str) -> Path:
    """Return the path of a config, which may be given by its name; a file of that name wins."""
    path = Path(text)
    return path if path.is_file() else named_configs().get(str(text), path)
