"""Load a config, apply what a command line says about it, and check it."""

from pathlib import Path

from mmengine.config import Config

from effdet_plugin.config.checking import check
from effdet_plugin.config.options import Options, merge_options
from effdet_plugin.config.signatures import nearest
from effdet_plugin.config.sizes import set_image_size
from effdet_plugin.errors import ConfigError, UserError


def load(
    path: str | Path,
    *,
    image_size: str | int | tuple[int, int] | None = None,
    options: Options | None = None,
) -> Config:
    """Load a config file, set its size and options, and check every node of it.

    Args:
        path: A config file of mmengine's, in text or Python style.
        image_size: Sets the input size everywhere; see `parse_size`. None keeps the config's.
        options: ``--cfg-options``, as typed or as a mapping; see `merge_options`.

    Raises:
        ConfigError: The file cannot be read, or it, an option or the size is wrong.
    """
    cfg = _read(Path(path))
    if options:
        merge_options(cfg, options)
    if image_size is not None:
        set_image_size(cfg, image_size)
    try:
        check(cfg)
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from None
    return cfg


def _read(path: Path) -> Config:
    """Read a config; whatever goes wrong in it is its author's and becomes one line."""
    if not path.is_file():
        hint = nearest(path.name, _neighbours(path))
        raise ConfigError(f'config {path}: there is no such file{hint}')
    try:
        return Config.fromfile(path)
    except UserError:
        raise
    except Exception as error:  # a config is a program of its author's: it may raise anything
        raise ConfigError(f'config {path}: {_reason(error)}') from error


def _reason(error: Exception) -> str:
    """Say in one line what went wrong in a config."""
    cause, hint = error.__cause__, ''
    reason = f'{type(error).__name__}: {error}'
    if isinstance(error, ImportError) and isinstance(cause, ImportError):
        # custom_imports: mmengine says where it looked; the reason is two errors further down.
        reason = f'{cause}: {cause.__context__}'
        if isinstance(cause.__context__, ModuleNotFoundError):
            hint = '; is the name right, and is it installed or its folder in PYTHONPATH?'
    return reason.strip().split('\n')[0] + hint


def _neighbours(path: Path) -> list[str]:
    return [p.name for p in path.parent.glob('*.py')] if path.parent.is_dir() else []
