"""``--cfg-options``: change single values of a config, by their path."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction

from effdet_plugin.config.checking import is_node, keys_of
from effdet_plugin.config.kinds import PLAIN_KEYS, SECTIONS, TOP_LEVEL_KEYS, Kind, kind_of_child
from effdet_plugin.config.signatures import Signature, nearest
from effdet_plugin.config.sizes import SIZE_KEY, set_image_size
from effdet_plugin.errors import ConfigError

_DELETE = '._delete_'  # mmengine's: what stands at that place is replaced, not merged with

Options = Mapping[str, Any] | Sequence[str]
# Dicts whose keys are names of the author's: any key is right.
_OPEN_DICTS = ('custom_keys', 'metainfo', 'data_prefix', 'mp_cfg', 'dist_cfg')


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
    for path in options:
        if not any(path.startswith(f'{place}.') for place in replaced):
            _check_path(cfg, path)
    for path in options:
        _make_room(cfg, path)
    try:
        cfg.merge_from_dict(options)
    except (TypeError, KeyError, IndexError) as error:
        raise ConfigError(f'--cfg-options: {str(error).splitlines()[0]}') from error
    if size is not None:
        set_image_size(cfg, size)


def _check_path(cfg: Config, path: str) -> None:
    """Refuse a path that neither the config nor a constructor along it knows."""
    node: Any = cfg._cfg_dict
    kind: Kind | None = None
    *parents, last = path.split('.')
    for depth, key in enumerate([*parents, last]):
        place = '.'.join(parents[:depth])
        if not depth and key in node and key not in TOP_LEVEL_KEYS:
            raise _variable_error(cfg, path, key)
        if node is None:
            return  # an argument that was switched off; `check` looks at what it is now
        if isinstance(node, (list, tuple)):
            _check_index(node, key, place, path)
            node = node[int(key)]
        elif not isinstance(node, dict):
            raise ConfigError(f'--cfg-options {path}: {place} is {node!r}, which has no keys')
        elif key not in node:
            _check_new_key(node, key, kind, place, path)
            return  # all below a new key is new; `check` looks at it once it is merged
        else:
            kind = kind_of_child(kind, key) if kind else SECTIONS.get(key) if not depth else None
            node = node[key]


def _variable_error(cfg: Config, path: str, name: str) -> ConfigError:
    """Say where the value of a config file's own variable went: nobody reads the variable."""
    places = [
        place for place in _places_of(cfg._cfg_dict, name) if place.split('.')[0] in TOP_LEVEL_KEYS
    ]
    remedy = f'set {", ".join(places)}' if places else 'set the values where it went'
    return ConfigError(
        f'--cfg-options {path}: {name} is a variable of the config file, which is used up when it '
        f'is read; {remedy}'
    )


def _places_of(node: Any, name: str, path: str = '') -> Iterator[str]:
    """Yield the paths of all keys of a name."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        place = f'{path}.{key}' if path else str(key)
        if key == name:
            yield place
        if isinstance(value, (dict, list, tuple)):
            yield from _places_of(value, name, place)


def _make_room(cfg: Config, path: str) -> None:
    """Put a dict where a path leads below an argument that was switched off by None."""
    node: Any = cfg._cfg_dict
    for key in path.split('.')[:-1]:
        if isinstance(node, dict) and key in node and node[key] is None:
            node[key] = ConfigDict()
        if isinstance(node, (list, tuple)):
            node = node[int(key)]
        elif isinstance(node, dict) and key in node:
            node = node[key]
        else:
            return


def _check_index(node: Sequence[Any], key: str, place: str, path: str) -> None:
    if not key.isdigit() or int(key) >= len(node):
        raise ConfigError(
            f'--cfg-options {path}: {place} is a list of {len(node)}; '
            f'{key!r} is none of its indices 0 to {len(node) - 1}'
        )


def _check_new_key(
    node: Mapping[str, Any], key: str, kind: Kind | None, place: str, path: str
) -> None:
    """Refuse a key that is not in a dict, unless it is known to be read there."""
    last_key = place.rsplit('.', 1)[-1]
    if last_key in _OPEN_DICTS or last_key.endswith(('_kwargs', '_args')):
        return
    allowed = _known_keys(node, kind, place, last_key)
    if not allowed.is_open and key not in allowed.names:
        hint = nearest(key, allowed.names - {'type', '_scope_'})
        raise ConfigError(f'--cfg-options {path}: {place or "the config"} has no {key!r}{hint}')


def _known_keys(node: Mapping[str, Any], kind: Kind | None, place: str, last_key: str) -> Signature:
    """Return the keys of a dict that are there or would be read."""
    if not place:
        return Signature(TOP_LEVEL_KEYS)
    if kind and is_node(node, kind):
        allowed = keys_of(node, kind, place)
        return Signature(allowed.names.union(node), allowed.is_open)
    return Signature(PLAIN_KEYS.get(last_key, frozenset()).union(node))
