"""``--cfg-options``: set values of a config by their dotted paths, after a check of each path."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.config import Config, DictAction

from effdet_plugin.config import schema
from effdet_plugin.config.image_size import set_image_size, set_resize_mode
from effdet_plugin.config.schema import RESIZE_KEY, SIZE_KEY, dicts_below
from effdet_plugin.errors import ConfigError
from effdet_plugin.other_names import OPTIONS

Options = Mapping[str, Any] | Sequence[str]
_TOP_LEVEL = schema.Keys(schema.TOP_LEVEL_KEYS)
_DELETE = '._delete_'  # mmengine's: the value at that place is replaced, not merged
_MAX_PLACES = 3  # named in a suggestion


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
    ``image_size`` sets the size everywhere, as ``--image-size`` does, and ``resize_mode`` the
    mode, as ``--resize`` does.

    Args:
        cfg: Changed in place.
        options: As for `parse_options`; list elements are addressed by their index.

    Raises:
        ConfigError: A path that leads nowhere; the message names the nearest right key.
    """
    options = parse_options(options)
    size, mode = options.pop(SIZE_KEY, None), options.pop(RESIZE_KEY, None)
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
    if mode is not None:
        set_resize_mode(cfg, mode)


def _check_path(cfg: Config, path: str) -> str | None:
    """Refuse a path with a key that neither the config nor the constructor at its place has.

    Returns:
        The place of an argument that is None and that the path leads into; None without one.
    """
    node, registries, place = cfg._cfg_dict, schema.PLAIN, ''
    for key in path.split('.'):
        if node is None:
            return place  # `check` looks at the keys below it after the merge
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
            keys = schema.keys_of(node, registries, place) if place else _TOP_LEVEL
            if key not in keys.names and keys.others != 'free':
                names = keys.names.union(node) if place else keys.names
                hint = _meant(cfg, place, key, names) or schema.nearest(key, names)
                raise ConfigError(
                    f'--cfg-options {path}: {place or "the config"} has no {key!r}{hint}'
                )
            return None  # `check` looks at what is below a new key after the merge
        elif not place and key not in schema.TOP_LEVEL_KEYS:
            raise _variable_error(cfg, path, key)
        else:
            node = node[key]
        registries = schema.registries_below(registries, key)
        place = f'{place}.{key}' if place else key
    return None


def _meant(cfg: Config, place: str, key: str, names: Iterable[str]) -> str:
    """Say what was meant by a key that is not known at its place.

    Args:
        cfg: The config.
        place: Where the key was written, '' for the top level.
        key: As written.
        names: Keys that are known at the place.

    Returns:
        ``; did you mean 'x'?`` with keys of the place or whole paths; '' where the meaning is
        unknown.
    """
    if not place and key in OPTIONS:
        return f'; it is an option of the command: {OPTIONS[key]}'
    usual = schema.paths_meant(key)
    found = [name for name in schema.keys_meant(key) if name in names]
    found = (
        found or [path for path in usual if _is_known(cfg, path)][:1] or schema.misspelt(key, names)
    )
    if usual and not found:
        return f'; its usual place is {usual[0]}, which this config does not take'
    found = found or places_with(cfg, key)
    return f'; did you mean {" or ".join(map(repr, found))}?' if found else ''


def _is_known(cfg: Config, path: str) -> bool:
    """Return whether the config has a path, or takes its last key."""
    node, registries = cfg._cfg_dict, schema.PLAIN
    *parents, last = path.split('.')
    for key in parents:
        if isinstance(node, (list, tuple)) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        elif isinstance(node, dict) and key in node:
            node = node[key]
        else:
            return path.split('.')[:-1] == ['randomness']  # a section that few configs have
        registries = schema.registries_below(registries, key)
    if not isinstance(node, dict):
        return False
    names = (
        schema.keys_of(node, registries, '.'.join(parents)).names if parents else _TOP_LEVEL.names
    )
    return last in node or last in names


def _variable_error(cfg: Config, path: str, name: str) -> ConfigError:
    """Return the error for a variable of a config file, with the places that have its value."""
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


def places_with(cfg: Mapping[str, Any], key: str) -> list[str]:
    """Return the dotted paths at which a config has a key, at most three.

    What validation and test have as well as training is named for training only.
    """
    found = [f'{place}.{key}' for place, node in dicts_below(cfg) if place and key in node]
    found = [path for path in found if path.split('.')[0] in schema.TOP_LEVEL_KEYS]
    trained = [path for path in found if not path.startswith(('val_', 'test_', 'tta_'))]
    return (trained or found)[:_MAX_PLACES]
