"""Check a config before anything is built: every type is known, every key is an argument."""

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

from mmcv import ops
from mmengine.config import Config

from effdet_plugin.config import schema
from effdet_plugin.config.size import SIZE_KEY, find_sizes
from effdet_plugin.errors import ConfigError

_NEAR = 0.75  # similarity from which an unknown key is taken for a misspelt one
# The same for names at the top level; `test_pipeline`, a usual variable, is 0.88 `tta_pipeline`.
_NEAR_TOP_LEVEL = 0.885
_RUNS_CODE = (
    '.pkl',
    '.pickle',
    '.yaml',
    '.yml',
)  # mmengine's loaders of these construct any object
# Options of mmdet's with a key `type` that names no registered type.
_NO_NODES = re.compile('adapt_cfg|.*_trans')


def check(cfg: Config) -> None:
    """Check that every dict with a ``type`` fits the constructor of its type.

    Types of this package and dicts without a type are checked strictly. mmdet's types take keys
    out of their configs in many ways, so there only a key that is near a known one is refused.

    Args:
        cfg: A loaded config; not changed, and nothing is built.

    Raises:
        ConfigError: A type that no registry has, a key that no constructor takes, or a size
            that reaches no dataset; the message names the place and the nearest right name.
    """
    for key in sorted(cfg.keys()):
        if key in schema.TOP_LEVEL_KEYS:
            _check_node(cfg[key], schema.registries_below(schema.PLAIN, key), key)
        # Other names are variables of the author's, unless they are nearly one of the runner's.
        elif near := _misspelt(key, schema.TOP_LEVEL_KEYS, _NEAR_TOP_LEVEL):
            raise ConfigError(f'{key}: nobody reads this name; did you mean {near[0]!r}?')
    if cfg.get('runner_type'):
        _find_type(cfg.runner_type, schema.RUNNER, 'runner_type')
    _check_sizes(cfg)


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Say which of the allowed names was probably meant.

    Returns:
        ``; did you mean 'x'?``, or the allowed names where none is near, or nothing.
    """
    allowed = sorted(allowed)
    matches = get_close_matches(name, allowed, n=1, cutoff=0.4)
    if matches:
        return f'; did you mean {matches[0]!r}?'
    return f'; choose one of {", ".join(allowed)}' if 0 < len(allowed) <= 20 else ''


def keys_of(node: Mapping[str, Any], registries: schema.Registries, path: str) -> schema.Keys:
    """Return the keys that a dict of a config may have.

    Args:
        node: The dict.
        registries: Where types of its place are registered.
        path: Its place in the config, for the message.

    Raises:
        ConfigError: None of the registries has its type.
    """
    if not registries or not isinstance(node.get('type'), (str, type)):
        return schema.plain_keys(path)
    keys = schema.type_keys(_find_type(node['type'], registries, f'{path}.type'))
    if not node.get('ema_type'):
        return keys
    # EMAHook passes its further keys to the average.
    average = schema.type_keys(_find_type(node['ema_type'], schema.MODEL, f'{path}.ema_type'))
    return schema.Keys(keys.names | average.names, average.others)


def _check_node(node: Any, registries: schema.Registries, path: str) -> None:
    """Check a value and everything below it."""
    if isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            _check_node(child, registries, f'{path}.{index}')
    if not isinstance(node, dict):
        return
    keys = keys_of(node, registries, path)
    _check_readable(node, registries, path)
    if 'type' not in node and _needs_type(path, registries):
        parent, _, name = path.rpartition('.')
        known = schema.plain_keys(parent).names if parent == 'default_hooks' else frozenset()
        hint = nearest(name, known) if name not in known else ''
        raise ConfigError(f'{path}: a {registries[0].name} needs a type{hint}')
    for key in sorted(node.keys() - keys.names):
        near = _misspelt(key, keys.names, _NEAR)
        if near or keys.others == 'wrong':
            owner = node.get('type', path.rpartition('.')[2])
            owner = owner if isinstance(owner, str) else owner.__name__
            hint = nearest(key, near or keys.names)
            raise ConfigError(f'{path}.{key}: {owner} takes no {key!r}{hint}')
    if node.get('type') != 'Albu':  # types of another library's stand below it
        for key, child in node.items():
            if not _NO_NODES.fullmatch(key):
                _check_node(child, schema.registries_below(registries, key), f'{path}.{key}')


def _check_readable(node: Mapping[str, Any], registries: schema.Registries, path: str) -> None:
    """Refuse files of a dataset that mmengine would read by running what is in them."""
    for key, value in node.items() if registries == schema.DATASET else ():
        if isinstance(value, str) and value.lower().endswith(_RUNS_CODE):
            raise ConfigError(
                f'{path}.{key}: {value!r} may run any code when it is read: save it as .json'
            )


def _needs_type(path: str, registries: schema.Registries) -> bool:
    """Whether a dict at this place must have a type: an entry of hooks, pipelines, ..."""
    parent, _, name = path.rpartition('.')
    if registries in (schema.HOOK, schema.TRANSFORM, schema.SCHEDULER, schema.METRIC):
        return parent == 'default_hooks' or name.isdigit()
    return path == 'model' or name == 'dataset'


def _misspelt(key: str, names: Iterable[str], cutoff: float) -> list[str]:
    """Return the name that a key was probably meant to be, if there is one."""
    anagrams = [name for name in names if sorted(name) == sorted(key)]  # 'rl' for 'lr'
    return anagrams or get_close_matches(key, names, n=1, cutoff=cutoff)


def _find_type(
    name: str | Callable[..., Any], registries: schema.Registries, path: str
) -> Callable[..., Any]:
    """Find what a type names in the registries of its place (for a model, also in mmcv.ops)."""
    if not isinstance(name, str):
        return name
    for registry in registries:
        found = registry.get(name)
        if found is not None:
            return found
    if registries == schema.MODEL and hasattr(ops, name):
        return getattr(ops, name)
    scope, _, own_name = name.rpartition('.')
    hint = _hint_of_type(own_name, registries)
    if scope and find_spec(scope.split('.')[0]) is None:
        hint = f': the package {scope.split(".")[0]} is not installed'
    raise ConfigError(f'{path}: no {registries[0].name} of the name {name!r} is registered{hint}')


def _hint_of_type(name: str, registries: schema.Registries) -> str:
    """Say which registered name was probably meant, or that an own part is not imported."""
    known: set[str] = set()
    for registry in registries:
        while registry is not None:
            known |= registry.module_dict.keys()
            registry = registry.parent
    # Among hundreds of names one is always similar: here a hint has to be nearer than elsewhere.
    near = get_close_matches(name, known, n=1, cutoff=0.65) or [k for k in known if name in k]
    return nearest(name, near) if near else '; is its file in custom_imports?'


def _check_sizes(cfg: Config) -> None:
    """Refuse a size at the top level that no dataset below has: it would have no effect."""
    size = cfg.get(SIZE_KEY)
    below = {path: value for path, value in find_sizes(cfg) if path != SIZE_KEY}
    if size is not None and below and size not in below.values():
        path, value = next(iter(below.items()))
        raise ConfigError(
            f'{SIZE_KEY}: {size} reaches no dataset ({path} is {value}): set it in the datasets '
            'too, or give the size with --image-size'
        )
