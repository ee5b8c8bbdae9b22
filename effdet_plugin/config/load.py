"""Load a config file, apply the command line's size and ``--cfg-options``, and check it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from effdet_plugin.config import schema
from effdet_plugin.config.check import check, keys_of, nearest
from effdet_plugin.config.size import SIZE_KEY, dicts_below, set_image_size
from effdet_plugin.errors import ConfigError, UserError

Options = Mapping[str, Any] | Sequence[str]
_TOP_LEVEL = schema.Keys(schema.TOP_LEVEL_KEYS)
_DELETE = '._delete_'  # mmengine's: the value at that place is replaced, not merged


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


def parse_options(options: Options) -> dict[str, Any]:
    """Read options as mmengine's ``DictAction`` does.

    Args:
        options: ``['model.neck.num_cells=4', ...]`` as typed, or a mapping, which is kept.

    Raises:
        ConfigError: An option without a ``=``, or with brackets that do not pair.
    """
    if isinstance(options, Mapping):
        return dict(options)
    parsed = {}
    for option in options:
        key, equals, value = option.partition('=')
        if not equals or not key:
            raise ConfigError(f'--cfg-options {option!r}: write key=value, for example model.x=1')
        try:
            parsed[key] = DictAction._parse_iterable(value)
        except AssertionError as error:
            raise ConfigError(f'--cfg-options {option!r}: {error}') from None
        except RecursionError:  # mmengine's parser, of a comma within brackets of a call
            raise ConfigError(
                f'--cfg-options {option!r}: write single keys, such as {key}.type=..., '
                "not Python's calls"
            ) from None
    return parsed


def merge_options(cfg: Config, options: Options) -> None:
    """Set values of a config by their dotted paths.

    A path must lead to a key that is there, or to one that the constructor at that place takes.
    ``image_size`` sets the size everywhere, as ``--image-size`` does.

    Args:
        cfg: Changed in place.
        options: As for `parse_options`; list elements are addressed by their index.

    Raises:
        ConfigError: A path that leads nowhere; the message names the nearest right key.
    """
    options = parse_options(options)
    size = options.pop(SIZE_KEY, None)
    replaced = [path.removesuffix(_DELETE) for path in options if path.endswith(_DELETE)]
    for path in list(options):
        if not any(path.startswith(f'{place}.') for place in replaced):
            switched_off = _check_path(cfg, path)
            if switched_off:  # mmengine merges nothing into None
                options[f'{switched_off}{_DELETE}'] = True
    try:
        cfg.merge_from_dict(options)
    except (TypeError, KeyError, IndexError) as error:
        raise ConfigError(f'--cfg-options: {str(error).splitlines()[0]}') from error
    if size is not None:
        set_image_size(cfg, size)


def _read(path: Path) -> Config:
    """Read a config; an error in it is its author's and becomes one line."""
    if not path.is_file():
        hint = nearest(path.name, [p.name for p in path.parent.glob('*.py')])
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


def _check_path(cfg: Config, path: str) -> str | None:
    """Refuse a path that neither the config nor a constructor along it knows.

    Returns:
        Where the path leads below an argument that is None, if it does.
    """
    node, registries, place = cfg._cfg_dict, schema.PLAIN, ''
    for key in path.split('.'):
        if node is None:
            return place  # `check` looks at what stands there after the merge
        if isinstance(node, (list, tuple)):
            if not key.isdigit() or int(key) >= len(node):
                raise ConfigError(
                    f'--cfg-options {path}: {place} is a list of {len(node)}; '
                    f'{key!r} is none of its indices 0 to {len(node) - 1}'
                )
            node = node[int(key)]
        elif not isinstance(node, dict):
            raise ConfigError(f'--cfg-options {path}: {place} is {node!r}, which has no keys')
        elif key not in node:
            keys = keys_of(node, registries, place) if place else _TOP_LEVEL
            if key not in keys.names and keys.others != 'free':
                hint = nearest(key, keys.names.union(node) if place else keys.names)
                raise ConfigError(
                    f'--cfg-options {path}: {place or "the config"} has no {key!r}{hint}'
                )
            return None  # all below a new key is new; `check` looks at it after the merge
        elif not place and key not in schema.TOP_LEVEL_KEYS:
            raise _variable_error(cfg, path, key)
        else:
            node = node[key]
        registries = schema.registries_below(registries, key)
        place = f'{place}.{key}' if place else key
    return None


def _variable_error(cfg: Config, path: str, name: str) -> ConfigError:
    """Say where the value of a config file's own variable went: nobody reads the variable."""
    places = [
        f'{place}.{name}'
        for place, found in dicts_below(cfg)
        if name in found and place.split('.')[0] in schema.TOP_LEVEL_KEYS
    ]
    remedy = f'set {", ".join(places)}' if places else 'set the values where it went'
    return ConfigError(
        f'--cfg-options {path}: {name} is a variable of the config file, which is used up when it '
        f'is read; {remedy}'
    )
