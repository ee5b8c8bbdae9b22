"""Load a config file, apply size and ``--cfg-options``, and check it before anything is built."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmcv import ops
from mmengine.config import Config, DictAction

from effdet_plugin.config import schema
from effdet_plugin.config.dataset_nodes import (
    SIZE_KEY,
    dicts_below,
    find_sizes,
    places_with,
    set_image_size,
)
from effdet_plugin.errors import ConfigError, UserError

Options = Mapping[str, Any] | Sequence[str]
_TOP_LEVEL = schema.Keys(schema.TOP_LEVEL_KEYS)
_DELETE = '._delete_'  # mmengine's: the value at that place is replaced, not merged
# The same at the top level: `test_pipeline`, a usual variable, has 0.88 with `tta_pipeline`.
_NEAR_TOP_LEVEL = 0.885
_RUNS_CODE = ('.pkl', '.pickle', '.yaml', '.yml')  # mmengine's loaders construct any object
# Arguments of mmdet's types with a key `type` that is not the name of a registered type.
_NO_NODES = re.compile('adapt_cfg|.*_trans')


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
    """Read a config; any error in it becomes a ConfigError of one line."""
    if not path.is_file():
        hint = schema.nearest(path.name, [p.name for p in path.parent.glob('*.py')])
        raise ConfigError(f'config {path}: there is no such file{hint}')
    try:
        return Config.fromfile(path)
    except UserError:
        raise
    except Exception as error:  # a config is a program: it may raise anything
        raise ConfigError(f'config {path}: {_reason(error)}') from error


def _reason(error: Exception) -> str:
    """Return in one line what went wrong in a config."""
    cause, hint = error.__cause__, ''
    reason = f'{type(error).__name__}: {error}'
    if isinstance(error, ImportError) and isinstance(cause, ImportError):
        # custom_imports: mmengine's error says where it looked; the reason is two errors below it.
        reason = f'{cause}: {cause.__context__}'
        if isinstance(cause.__context__, ModuleNotFoundError):
            hint = '; is the name right, and is it installed or its folder in PYTHONPATH?'
    return reason.strip().split('\n')[0] + hint


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
            keys = keys_of(node, registries, place) if place else _TOP_LEVEL
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
    names = keys_of(node, registries, '.'.join(parents)).names if parents else _TOP_LEVEL.names
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


def check(cfg: Config) -> None:
    """Check that every dict with a ``type`` fits the constructor of its type.

    Types of this package and dicts without a type are checked strictly. mmdet's types take keys
    out of their configs in many ways, so there only a key similar to a known one is refused.

    Args:
        cfg: A loaded config; not changed, and nothing is built.

    Raises:
        ConfigError: A type that no registry has, a key that no constructor takes, or a size
            that reaches no dataset; the message names the place and the most similar name.
    """
    for key in sorted(cfg.keys()):
        if key in schema.TOP_LEVEL_KEYS:
            _check_node(cfg[key], schema.registries_below(schema.PLAIN, key), key)
        # Other names are variables of the config, unless they are similar to one of the runner's.
        elif near := schema.misspelt(key, schema.TOP_LEVEL_KEYS, _NEAR_TOP_LEVEL):
            raise ConfigError(f'{key}: nothing reads this name; did you mean {near[0]!r}?')
    if cfg.get('runner_type'):
        _find_type(cfg.runner_type, schema.RUNNER, 'runner_type')
    _check_sizes(cfg)


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
    # EMAHook passes its other keys to the averaged model.
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
    if 'type' not in node and schema.needs_type(path, registries):
        parent, _, name = path.rpartition('.')
        known = schema.plain_keys(parent).names if parent == 'default_hooks' else frozenset()
        hint = schema.nearest(name, known) if name not in known else ''
        raise ConfigError(f'{path}: a {registries[0].name} needs a type{hint}')
    for key in sorted(node.keys() - keys.names):
        near = [name for name in schema.keys_meant(key) if name in keys.names]
        near = near or schema.misspelt(key, keys.names)
        if near or keys.others == 'wrong':
            owner = node.get('type', path.rpartition('.')[2])
            owner = owner if isinstance(owner, str) else owner.__name__
            hint = f'; did you mean {near[0]!r}?' if near else schema.nearest(key, keys.names)
            raise ConfigError(f'{path}.{key}: {owner} takes no {key!r}{hint}')
    if node.get('type') != 'Albu':  # the types below it are those of another library
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


def _find_type(
    name: str | Callable[..., Any], registries: schema.Registries, path: str
) -> Callable[..., Any]:
    """Look up a type in the registries of its place (for a model, also in mmcv.ops)."""
    if not isinstance(name, str):
        return name
    for registry in registries:
        found = registry.get(name)
        if found is not None:
            return found
    if registries == schema.MODEL and hasattr(ops, name):
        return getattr(ops, name)
    scope, _, own_name = name.rpartition('.')
    hint = schema.hint_of_type(own_name, registries)
    if scope and find_spec(scope.split('.')[0]) is None:
        hint = f': the package {scope.split(".")[0]} is not installed'
    raise ConfigError(f'{path}: no {registries[0].name} of the name {name!r} is registered{hint}')


def _check_sizes(cfg: Config) -> None:
    """Refuse a top-level size that no dataset has: it would have no effect."""
    size = cfg.get(SIZE_KEY)
    below = {path: value for path, value in find_sizes(cfg) if path != SIZE_KEY}
    if size is not None and below and size not in below.values():
        path, value = next(iter(below.items()))
        raise ConfigError(
            f'{SIZE_KEY}: {size} reaches no dataset ({path} is {value}): set it in the datasets '
            'too, or give the size with --image-size'
        )
