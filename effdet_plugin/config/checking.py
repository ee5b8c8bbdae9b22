"""Check a config before anything is built: every type is known, every key is an argument."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

from mmcv import ops
from mmdet.registry import HOOKS
from mmengine.config import Config
from mmengine.registry import Registry

from effdet_plugin.config.kinds import (
    HOOK,
    METRIC,
    MODEL,
    PLAIN_KEYS,
    RUNNER,
    SCHEDULER,
    SECTIONS,
    TOP_LEVEL_KEYS,
    TRANSFORM,
    Kind,
    kind_of_child,
)
from effdet_plugin.config.signatures import Signature, nearest, signature_of
from effdet_plugin.config.sizes import SIZE_KEY, find_sizes
from effdet_plugin.errors import ConfigError

HOOKS_SECTION = 'default_hooks'
_NODE_KEYS = frozenset({'type', '_scope_'})
# Layer builders and heads that take keys out of a node before its constructor sees it (mmdet).
_KEYS_TAKEN_OUT = {
    'loss_cls': frozenset({'bg_cls_weight'}),
    'dcn': frozenset({'fallback_on_stride', 'deformable_groups'}),
    'upsample_cfg': frozenset({'scale_factor', 'mode', 'align_corners', 'upsample_kernel'}),
}
_NMS_KEYS = frozenset({'class_agnostic', 'split_thr', 'max_num'})
# Below this type stand another library's types, below these keys options called `type`.
_FOREIGN_TYPE = 'Albu'
_OPTION_KEYS = re.compile('adapt_cfg|.*_trans')


def check(cfg: Config) -> None:
    """Check that every node binds to the constructor of its type.

    Args:
        cfg: A loaded config; not changed, and nothing is built.

    Raises:
        ConfigError: A type that no registry has, a key that no constructor takes, or a size
            that reaches no data set; the message names the place and the nearest right name.
    """
    _check_top_level(cfg)
    if cfg.get('runner_type'):
        _find_type(cfg.runner_type, RUNNER, 'runner_type')
    for section, kind in SECTIONS.items():
        _check_node(cfg.get(section), kind, section)
    for section in PLAIN_KEYS.keys() - SECTIONS.keys():
        _check_plain(cfg.get(section), section)
    _check_sizes(cfg)


def is_node(node: Any, kind: Kind) -> bool:
    """Whether a value names, at the place of some kind, a registered type."""
    return (
        isinstance(node, dict)
        and bool(kind.registries)
        and isinstance(node.get('type'), (str, type))
    )


def keys_of(node: Mapping[str, Any], kind: Kind, path: str) -> Signature:
    """Return the keys that a node with a ``type`` may have.

    Args:
        node: The node.
        kind: What stands at its place.
        path: Its place in the config, for the message.

    Raises:
        ConfigError: No registry of that kind has its type.
    """
    last_key = path.rsplit('.', 1)[-1]
    target = _find_type(node['type'], kind, f'{path}.type')
    signature = signature_of(target)
    extra = kind.extra_keys | _NODE_KEYS | _KEYS_TAKEN_OUT.get(last_key, frozenset())
    is_open = signature.is_open
    if node.get('ema_type') and target is HOOKS.get('EMAHook'):
        average = _find_type(node['ema_type'], MODEL, f'{path}.ema_type')
        extra, is_open = extra | signature_of(average).names, signature_of(average).is_open
    if inspect.isfunction(target):
        extra |= _NMS_KEYS
    return Signature(signature.names | extra, is_open)


def _check_node(node: Any, kind: Kind, path: str) -> None:
    """Check a node and everything below it."""
    if isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            _check_node(child, kind, f'{path}.{index}')
    if not isinstance(node, dict):
        return
    if 'type' not in node and _needs_type(path, kind):
        parent, _, name = path.rpartition('.')
        hint = nearest(name, PLAIN_KEYS[HOOKS_SECTION]) if parent == HOOKS_SECTION else ''
        raise ConfigError(f'{path}: a {kind.noun} needs a type{hint}')
    if is_node(node, kind):
        _check_keys(node, keys_of(node, kind, path), f'{_name(node["type"])} takes', path)
    _check_plain(node, path)
    if node.get('type') == _FOREIGN_TYPE:
        return
    for key, child in node.items():
        if _OPTION_KEYS.fullmatch(key):
            continue
        _check_node(child, kind_of_child(kind, key), f'{path}.{key}')


def _needs_type(path: str, kind: Kind) -> bool:
    """Whether a dict at this place must be a node: an entry of hooks, pipelines, ..."""
    parent, _, last_key = path.rpartition('.')
    if kind in (HOOK, TRANSFORM, SCHEDULER, METRIC):
        return parent == HOOKS_SECTION or last_key.isdigit()
    return path == 'model' or last_key == 'dataset'


def _check_plain(node: Any, path: str) -> None:
    """Check the keys of a dict without a type where they are known."""
    last_key = path.rsplit('.', 1)[-1]
    if isinstance(node, dict) and last_key in PLAIN_KEYS and path != HOOKS_SECTION:
        _check_keys(node, Signature(PLAIN_KEYS[last_key]), f'{last_key} has', path)


def _check_keys(node: Mapping[str, Any], allowed: Signature, who: str, path: str) -> None:
    for key in sorted(node.keys() - allowed.names):
        # An open constructor takes any key, but hardly one that is nearly one of its own.
        if allowed.is_open and not get_close_matches(key, allowed.names, cutoff=0.85):
            continue
        hint = nearest(key, allowed.names - _NODE_KEYS)
        raise ConfigError(f'{path}.{key}: {who} no {key!r}{hint}')


def _name(type_: str | Callable[..., Any]) -> str:
    return type_ if isinstance(type_, str) else type_.__name__


def _find_type(name: str | Callable[..., Any], kind: Kind, path: str) -> Callable[..., Any]:
    """Find what a type names in the registries of its kind (for a model, also in mmcv.ops)."""
    if not isinstance(name, str):
        return name
    for registry in kind.registries:
        found = registry.get(name)
        if found is not None:
            return found
    if kind is MODEL and hasattr(ops, name):
        return getattr(ops, name)
    scope, _, own_name = name.rpartition('.')
    hint = _hint_of_type(own_name, _all_names(kind.registries))
    if scope and find_spec(scope.split('.')[0]) is None:
        hint = f': the package {scope.split(".")[0]} is not installed'
    raise ConfigError(f'{path}: no {kind.noun} of the name {name!r} is registered{hint}')


def _hint_of_type(name: str, known: Iterable[str]) -> str:
    """Say which registered name was probably meant, or that an own part is not imported."""
    # Among hundreds of names one is always a bit like it: a hint has to be nearer than elsewhere.
    near = get_close_matches(name, known, n=1, cutoff=0.65) or [k for k in known if name in k]
    return nearest(name, near) if near else '; is its file in custom_imports?'


def _all_names(registries: Iterable[Registry | None]) -> set[str]:
    names: set[str] = set()
    for registry in registries:
        while registry is not None:
            names |= registry.module_dict.keys()
            registry = registry.parent
    return names


def _check_top_level(cfg: Config) -> None:
    """Refuse a name that is nearly one of the runner's; others are variables of the author."""
    for key in sorted(cfg.keys() - TOP_LEVEL_KEYS):
        near = get_close_matches(key, TOP_LEVEL_KEYS, n=1, cutoff=0.9)
        if near:
            raise ConfigError(f'{key}: nobody reads this name; did you mean {near[0]!r}?')


def _check_sizes(cfg: Config) -> None:
    """Refuse a size at the top that no data set below has: it would be without effect."""
    size = cfg.get(SIZE_KEY)
    below = {path: value for path, value in find_sizes(cfg) if path != SIZE_KEY}
    if size is not None and below and size not in below.values():
        path, value = next(iter(below.items()))
        raise ConfigError(
            f'{SIZE_KEY}: {size} reaches no data set ({path} is {value}): set it in the data '
            f'sets too, or give the size with --image-size'
        )
