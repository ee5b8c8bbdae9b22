"""Load a config file, check it before anything is built, give its pipelines their size and mode."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.logging import print_log

from effdet_plugin.config import schema
from effdet_plugin.config.image_size import set_image_size
from effdet_plugin.config.networks import use_network
from effdet_plugin.config.options import Options, merge_options
from effdet_plugin.config.schema import RESIZE_KEY, SIZE_KEY, dicts_below
from effdet_plugin.errors import ConfigError, UserError
from effdet_plugin.images import RESIZE_MODES
from effdet_plugin.shipped_configs import config_path

# The same at the top level: `test_pipeline`, a usual variable, has 0.88 with `tta_pipeline`.
_NEAR_TOP_LEVEL = 0.885
_RUNS_CODE = ('.pkl', '.pickle', '.yaml', '.yml')  # mmengine's loaders construct any object
_OURS = ('LetterBox', 'ScaleJitterCrop')  # the transforms with a resize mode
_DEFAULT_MODE = RESIZE_MODES[0]
# What mmengine says of a `_base_` in a package that it does not know or find.
_FOREIGN_BASE = re.compile(
    'does not support to load|external package|distribution was not found|is not installed'
)
# What a checkpoint of another port may be trained with, and the default of our parts.
_UNTOLD = {
    'neck.pool_type': 'max',
    'bbox_head.anchor_generator.aspect_ratios': (1.0, 2.0, 0.5),
}
# Arguments of mmdet's types with a key `type` that is not the name of a registered type.
_NO_NODES = re.compile('adapt_cfg|.*_trans')


def load(
    path: str | Path,
    *,
    image_size: str | int | tuple[int, int] | None = None,
    options: Options | None = None,
    network: str | None = None,
) -> Config:
    """Load a config file, set its size and options, and check every node of it.

    Args:
        path: A config file of mmengine's, in text or Python style; or the name of one of ours.
        image_size: Sets the input size everywhere; see `parse_size`. None keeps the config's.
        options: ``--cfg-options``, as typed or as a mapping; see `merge_options`.
        network: Replaces the config's network, before all else; see `use_network`.

    Raises:
        ConfigError: The file cannot be read, or it, an option or the size is wrong.
    """
    cfg = _read(Path(path) if Path(path).is_file() else config_path(path))
    if network is not None:
        use_network(cfg, network)
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
    if _FOREIGN_BASE.search(reason):
        hint = "; a base in an installed package is written `_base_ = 'mmdet::PATH'`"
    return reason.strip().split('\n')[0].rstrip('.') + hint


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
        schema.find_type(cfg.runner_type, schema.RUNNER, 'runner_type')
    _check_sizes(cfg)


def _check_node(node: Any, registries: schema.Registries, path: str) -> None:
    """Check a value and everything below it."""
    if isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            _check_node(child, registries, f'{path}.{index}')
    if not isinstance(node, dict):
        return
    keys = schema.keys_of(node, registries, path)
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


def _check_sizes(cfg: Config) -> None:
    """Refuse a top-level size that no dataset has: it would have no effect."""
    size = cfg.get(SIZE_KEY)
    below = {
        f'{place}.{SIZE_KEY}': found[SIZE_KEY]
        for place, found in dicts_below(cfg)
        if place and SIZE_KEY in found
    }
    if size is not None and below and size not in below.values():
        path, value = next(iter(below.items()))
        raise ConfigError(
            f'{SIZE_KEY}: {size} reaches no dataset ({path} is {value}): set it in the datasets '
            'too, or give the size with --image-size'
        )


def size_pipelines(dataset: Any) -> None:
    """Write ``image_size`` and ``resize_mode`` of dataset nodes into their pipelines' transforms.

    This is for pipelines that are built without their dataset: by mmdet's inference, or for TTA.

    Args:
        dataset: A dataset node of a config, changed in place. Where several nested ones have a
            size or a mode, the outermost decides, as it does when they are built.
    """
    for place, node in reversed(list(dicts_below(dataset))):
        given = {key: node[key] for key in (SIZE_KEY, RESIZE_KEY) if node.get(key)}
        if not given or _is_in_pipeline(place):
            continue
        for below, step in dicts_below(node):
            is_step = _is_in_pipeline(below) and 'type' in step
            transform = TRANSFORMS.get(step['type']) if is_step else None
            names = schema.signature_of(transform).names if transform else frozenset()
            step.update({key: value for key, value in given.items() if key in names})


def resize_mode_of(dataset: Any) -> str | None:
    """Return how a dataset's images are resized; None where no transform of ours does it.

    Args:
        dataset: A dataset node of a config, such as ``cfg.test_dataloader.dataset``.
    """
    nodes = list(dicts_below(dataset or {}))
    modes = [node[RESIZE_KEY] for _, node in nodes if node.get(RESIZE_KEY)]  # outermost first
    if modes:
        return str(modes[0])
    is_ours = any(node.get('type') in _OURS for _, node in nodes)
    return _DEFAULT_MODE if is_ours else None


def tell_differences(embedded: Any, config: Config) -> None:
    """Log a line for what a checkpoint was trained with, and the config that is used has not.

    What no weight tells: how images are resized, how maps are pooled, the aspect of anchors.

    Args:
        embedded: The config that the checkpoint carries, JSON text.
        config: What is evaluated or trained.
    """
    try:
        carried = json.loads(embedded)
        theirs = resize_mode_of(carried['test_dataloader']['dataset'])
    except (KeyError, RecursionError, TypeError, ValueError):
        return  # damaged: an error where the config is needed
    lines = []
    own = resize_mode_of((config.get('test_dataloader') or {}).get('dataset'))
    if own and theirs in RESIZE_MODES and own != theirs:
        lines.append(
            f'resize_mode={theirs}, images are resized by {own} here: expect other detections, or '
            f'give --resize {theirs}'
        )
    for path, usual in _UNTOLD.items():
        of_theirs, of_ours = (_at(one.get('model'), path, usual) for one in (carried, config))
        if of_theirs != of_ours:
            lines.append(
                f'model.{path}={of_theirs}, the config has {of_ours}: expect other detections, or '
                'leave the config out'
            )
    for line in lines:
        text = f'the checkpoint was trained with {line}'
        print_log(text, logger='current', level=logging.WARNING)


def _at(model: Any, path: str, usual: Any) -> str:
    """A value of a model's config as text; the usual one where a part does not name it."""
    for key in path.split('.'):
        if not isinstance(model, Mapping):
            return json.dumps(usual)
        model = model.get(key, usual)
    return json.dumps(model)


def _is_in_pipeline(place: str) -> bool:
    return 'pipeline' in place.split('.')
