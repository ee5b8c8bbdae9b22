"""Where in a config which kind of part stands: tables, read by `checking` and `options`."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mmdet import registry
from mmengine.registry import FUNCTIONS, Registry
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from effdet_plugin.config.signatures import signature_of


@dataclass(frozen=True)
class Kind:
    """One kind of part.

    Attributes:
        noun: What it is called in a message.
        registries: Where its types are registered; the first that knows a type decides.
        extra_keys: Keys that whoever builds the part takes out before its constructor is called.
    """

    noun: str
    registries: tuple[Registry, ...]
    extra_keys: frozenset[str] = frozenset()


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _kind(noun: str, *registries: Registry, extra: str = '') -> Kind:
    return Kind(noun, registries, _words(extra))


MODEL = _kind('part of a model', registry.MODELS, registry.TASK_UTILS)
NORM = _kind('norm layer', registry.MODELS, extra='requires_grad')
INITIALIZER = _kind('initializer', registry.WEIGHT_INITIALIZERS, extra='override name')
DATASET = _kind('data set', registry.DATASETS)
TRANSFORM = _kind('transform', registry.TRANSFORMS)
DATA_SAMPLER = _kind('data sampler', registry.DATA_SAMPLERS)
FUNCTION = _kind('function', FUNCTIONS)
METRIC = _kind('metric', registry.METRICS, registry.EVALUATOR, registry.TASK_UTILS)
OPTIM_WRAPPER = _kind(
    'optimizer wrapper', registry.OPTIM_WRAPPERS, extra='constructor paramwise_cfg'
)
OPTIMIZER = _kind('optimizer', registry.OPTIMIZERS)
SCHEDULER = _kind('scheduler', registry.PARAM_SCHEDULERS, extra='convert_to_iter_based')
LOOP = _kind('loop', registry.LOOPS, extra='by_epoch')
HOOK = _kind('hook', registry.HOOKS, extra='priority')
VISUALIZER = _kind('visualizer', registry.VISUALIZERS)
VIS_BACKEND = _kind('visualizer backend', registry.VISBACKENDS)
LOG_PROCESSOR = _kind('log processor', registry.LOG_PROCESSORS)
MODEL_WRAPPER = _kind('model wrapper', registry.MODEL_WRAPPERS)
RUNNER = _kind('runner', registry.RUNNERS)
# A section of plain keys with parts below it.
DATALOADER = Kind('data loader', ())

# The sections that a runner reads, and what stands in each of them.
SECTIONS: dict[str, Kind] = {
    'model': MODEL,
    'data_preprocessor': MODEL,
    'tta_model': MODEL,
    'tta_pipeline': TRANSFORM,
    'train_dataloader': DATALOADER,
    'val_dataloader': DATALOADER,
    'test_dataloader': DATALOADER,
    'val_evaluator': METRIC,
    'test_evaluator': METRIC,
    'optim_wrapper': OPTIM_WRAPPER,
    'param_scheduler': SCHEDULER,
    'train_cfg': LOOP,
    'val_cfg': LOOP,
    'test_cfg': LOOP,
    'default_hooks': HOOK,
    'custom_hooks': HOOK,
    'visualizer': VISUALIZER,
    'vis_backends': VIS_BACKEND,
    'log_processor': LOG_PROCESSOR,
    'model_wrapper_cfg': MODEL_WRAPPER,
}

# Keys below which another kind stands than above; everything else keeps the kind of its parent.
_CHILDREN: dict[tuple[Kind, str], Kind] = {
    (DATALOADER, 'dataset'): DATASET,
    (DATALOADER, 'sampler'): DATA_SAMPLER,
    (DATALOADER, 'batch_sampler'): DATA_SAMPLER,
    (DATALOADER, 'collate_fn'): FUNCTION,
    (DATALOADER, 'worker_init_fn'): FUNCTION,
    (DATASET, 'pipeline'): TRANSFORM,
    (HOOK, 'switch_pipeline'): TRANSFORM,
    (MODEL, 'init_cfg'): INITIALIZER,
    (MODEL, 'norm_cfg'): NORM,
    (OPTIM_WRAPPER, 'optimizer'): OPTIMIZER,
    (VISUALIZER, 'vis_backends'): VIS_BACKEND,
}


def kind_of_child(kind: Kind, key: str) -> Kind:
    """Return the kind of what stands under a key of a node of some kind."""
    return _CHILDREN.get((kind, key), kind)


def _arguments(function: Callable[..., Any], *more: str) -> frozenset[str]:
    return signature_of(function).names.union(more)


# Plain dicts whose usual keys are known, by their last key.
_DATALOADER_KEYS = _arguments(DataLoader, 'num_batch_per_epoch', 'disable_subprocess_warning')
PLAIN_KEYS: dict[str, frozenset[str]] = {
    'train_dataloader': _DATALOADER_KEYS,
    'val_dataloader': _DATALOADER_KEYS,
    'test_dataloader': _DATALOADER_KEYS,
    'randomness': _arguments(Runner.set_randomness),
    'auto_scale_lr': frozenset({'enable', 'base_batch_size'}),
    'default_hooks': _words(
        'runtime_info timer sampler_seed logger param_scheduler checkpoint visualization'
    ),
    'env_cfg': frozenset({'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'}),
    'paramwise_cfg': _words(
        'custom_keys bias_lr_mult bias_decay_mult norm_decay_mult dwconv_decay_mult '
        'flat_decay_mult bypass_duplicate dcn_offset_lr_mult '
        'num_layers decay_rate decay_type '  # mmdet's layer-wise constructor
        'layer_decay'  # ours
    ),
}

# Top-level names that the runner, its builders or our tools read.
TOP_LEVEL_KEYS = (
    (frozenset(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'})
    | frozenset(SECTIONS)
    | _words(
        'custom_imports image_size work_dir runner_type sync_bn find_unused_parameters compile '
        'activation_checkpointing efficient_conv_bn_eval'
    )
)
