"""The config inside a checkpoint, ``meta['config']``: plain JSON, from which no code is run.

The file may come from anywhere. So of its config only the model, the test pipeline and the classes
are taken, and each ``type`` in them must be a name that stands in a registry already: mmengine
would import a dotted one, whatever it is (``subprocess.Popen``).
"""

import json
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmcv import ops
from mmdet.registry import DATASETS
from mmengine.config import Config

from effdet_plugin.config import schema
from effdet_plugin.config.dataset_nodes import dataset_nodes
from effdet_plugin.errors import CheckpointError, UserError

EMBEDDED = 'config'  # its key in a checkpoint's ``meta``
_SCOPES = ('mmdet.', 'mmengine.', 'mmcv.')
# What would read other files: weights, and the config of a teacher, which is a program.
_DROPPED = (
    'pretrained', 'init_cfg', 'checkpoint', 'load_from', '_scope_', 'custom_imports',
    'teacher_config', 'teacher_ckpt', 'backend_args', 'file_client_args',
    'checkpoint_path', 'pretrained_cfg', 'pretrained_cfg_overlay', 'cache_dir',  # of timm
    'freeze',  # an expression, for training only
)  # fmt: skip
_ADDRESSES = ('hf-hub:', 'hf_hub:', 'local-dir:')  # of timm's model names
# Addresses, and expressions: some parts of mmdet and mmcv evaluate an argument as Python.
_NO_NAME = re.compile(r'://|[^\w ./:+,@-]')
_MAX_DEPTH = 50


def embed(cfg: Config) -> str:
    """Return a config as JSON text: tuples become lists, types their registered names.

    Where images are cached is left out: it is a folder of this machine.

    Args:
        cfg: Complete.
    """
    found = cfg.to_dict()
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for node in dataset_nodes((found.get(loader) or {}).get('dataset')):
            node.pop('cache', None)
    return json.dumps(found, default=_name)


def embedded_config(checkpoint: Mapping[str, Any], source: str = 'the checkpoint') -> Config:
    """Return the config in a checkpoint, from which a detector can be built without running code.

    Args:
        checkpoint: As loaded.
        source: What to call it in messages.

    Returns:
        A config with ``model`` and ``test_dataloader`` (image size, pipeline, class names).
        ``pretrained``, ``init_cfg`` and ``custom_imports`` are left out.

    Raises:
        CheckpointError: There is none, it is damaged, or a type in it is not registered.
    """
    meta = checkpoint.get('meta')
    text = meta.get(EMBEDDED) if isinstance(meta, Mapping) else None
    if not isinstance(meta, Mapping) or not isinstance(text, str):
        raise CheckpointError(f'{source}: carries no config; give the config that it belongs to')
    try:
        found = json.loads(text)
        dataset = found['test_dataloader']['dataset']
        nodes = list(dataset_nodes(dataset))
        given = {
            key: next((node[key] for node in nodes if node.get(key)), None)
            for key in (schema.SIZE_KEY, schema.RESIZE_KEY)
        }
        # The innermost one, which mmdet's inferencer takes, too.
        steps = [node['pipeline'] for node in nodes if node.get('pipeline')][-1]
        classes = _classes_of(meta, dataset)
        if not isinstance(found['model'], dict) or not isinstance(steps, list):
            raise TypeError('the model is no dict, or the pipeline no list')
        model = _checked(found['model'], schema.MODEL, 'model', 0)
        pipeline = _checked(steps, schema.TRANSFORM, 'test_pipeline', 0)
    except CheckpointError as error:
        raise CheckpointError(f'{source}: {error}; give a config file, which you trust') from None
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
        reason = f'{type(error).__name__}: {error}'.splitlines()[0][:100]
        raise CheckpointError(
            f'{source}: its config is damaged ({reason}); give a config file'
        ) from error
    dataset = {'type': 'EfficientDetDataset', 'metainfo': {'classes': classes}, **given}
    dataset['pipeline'] = pipeline
    return Config({'model': model, 'test_dataloader': {'dataset': _tuples(dataset)}})


@contextmanager
def damage_is_told(source: str) -> Iterator[None]:
    """Turn what constructors raise about wrong arguments into one line.

    Args:
        source: File whose config is built.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # constructors of mmdet's parts may raise anything
        reason = f'{type(error).__name__}: {error}'.splitlines()[0][:200]
        raise CheckpointError(
            f'{source}: no detector can be built from its config ({reason}); give a config file'
        ) from error


def _checked(value: Any, registries: schema.Registries, place: str, depth: int) -> Any:
    """Return a value without the keys that read files, after a look at each type below it.

    Raises:
        CheckpointError: A type that is not registered, or an address.
    """
    if depth > _MAX_DEPTH:
        raise CheckpointError(f'its config is nested too deeply at {place[:100]}')
    if isinstance(value, list):
        return [_checked(v, registries, f'{place}.{i}', depth + 1) for i, v in enumerate(value)]
    if isinstance(value, str) and (_NO_NAME.search(value) or value.startswith(_ADDRESSES)):
        raise CheckpointError(
            f'its config has an address or an expression: {place[:100]}={reprlib.repr(value)}'
        )
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, part in value.items():
        if key == 'type':
            kept[key] = _registered(part, registries, f'{place}.type')
        elif key not in _DROPPED:
            below = schema.registries_below(registries, key)
            kept[key] = _checked(part, below, f'{place}.{key}', depth + 1)
    return kept


def _registered(name: Any, registries: schema.Registries, place: str) -> str:
    """Return a type's name without its scope if a registry holds it; nothing is imported for it."""
    if isinstance(name, str):
        scope = next((scope for scope in _SCOPES if name.startswith(scope)), '')
        bare = name.removeprefix(scope)
        # mmdet takes layers of mmcv.ops by name, and mmcv evaluates the type of an NMS as Python.
        is_op = registries == schema.MODEL and bare in ops.__all__
        if is_op or any(_find(bare, registry) for registry in registries):
            return bare
    raise CheckpointError(
        f'its config has the type {reprlib.repr(name)} at {place[:100]}, which is not registered'
    )


def _find(name: str, registry: Any) -> Any:
    """Return what a registry or one above it holds under a name; None if there is nothing."""
    while registry is not None:
        if name in registry.module_dict:
            return registry.module_dict[name]
        registry = registry.parent
    return None


def _classes_of(meta: Mapping[str, Any], dataset: Any) -> list[str]:
    """Return the class names: the checkpoint's, else the test data's or those of its type."""
    classes = (meta.get('dataset_meta') or {}).get('classes')
    for node in dataset_nodes(dataset):
        of_type = getattr(_find(str(node.get('type')), DATASETS), 'METAINFO', {})
        classes = classes or (node.get('metainfo') or {}).get('classes') or of_type.get('classes')
    return [classes] if isinstance(classes, str) else [str(name) for name in classes or ()]


def _tuples(value: Any) -> Any:
    """Make lists of plain values tuples, as mmcv's transforms demand of sizes."""
    if isinstance(value, dict):
        return {key: _tuples(part) for key, part in value.items()}
    if isinstance(value, list):
        is_plain = value and all(isinstance(part, int | float | str) for part in value)
        return tuple(value) if is_plain else [_tuples(part) for part in value]
    return value


def _name(value: type | Callable[..., Any] | Any) -> str:
    return value.__name__ if callable(value) and hasattr(value, '__name__') else str(value)
