"""Which types a config may name at which place, and which keys they take."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mmdet import registry
from mmengine.registry import FUNCTIONS, Registry
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

# Where the types at a place are registered; the first registry that knows a type decides.
Registries = tuple[Registry, ...]

MODEL = (registry.MODELS, registry.TASK_UTILS)
DATASET = (registry.DATASETS,)
TRANSFORM = (registry.TRANSFORMS,)
METRIC = (registry.METRICS, registry.EVALUATOR, registry.TASK_UTILS)
OPTIM_WRAPPER = (registry.OPTIM_WRAPPERS,)
SCHEDULER = (registry.PARAM_SCHEDULERS,)
HOOK = (registry.HOOKS,)
VISUALIZER = (registry.VISUALIZERS,)
PLAIN: Registries = ()  # a dict without a type: the config itself, a data loader

# Keys below which other types stand than above them.
_BELOW: dict[Registries, dict[str, Registries]] = {
    PLAIN: {
        'model': MODEL,
        'data_preprocessor': MODEL,
        'tta_model': MODEL,
        'tta_pipeline': TRANSFORM,
        'dataset': DATASET,
        'sampler': (registry.DATA_SAMPLERS,),
        'batch_sampler': (registry.DATA_SAMPLERS,),
        'collate_fn': (FUNCTIONS,),
        'worker_init_fn': (FUNCTIONS,),
        'val_evaluator': METRIC,
        'test_evaluator': METRIC,
        'optim_wrapper': OPTIM_WRAPPER,
        'param_scheduler': SCHEDULER,
        'train_cfg': (registry.LOOPS,),
        'val_cfg': (registry.LOOPS,),
        'test_cfg': (registry.LOOPS,),
        'default_hooks': HOOK,
        'custom_hooks': HOOK,
        'visualizer': VISUALIZER,
        'vis_backends': (registry.VISBACKENDS,),
        'log_processor': (registry.LOG_PROCESSORS,),
        'model_wrapper_cfg': (registry.MODEL_WRAPPERS,),
    },
    DATASET: {'pipeline': TRANSFORM},
    HOOK: {'switch_pipeline': TRANSFORM},
    MODEL: {'init_cfg': (registry.WEIGHT_INITIALIZERS,)},
    OPTIM_WRAPPER: {'optimizer': (registry.OPTIMIZERS,)},
    VISUALIZER: {'vis_backends': (registry.VISBACKENDS,)},
}


def registries_below(registries: Registries, key: str) -> Registries:
    """Return the registries of the types under a key, given those of the dict that has the key."""
    return _BELOW.get(registries, {}).get(key, registries)


@dataclass(frozen=True)
class Signature:
    """The keys that a dict of a config may have.

    Attributes:
        names: The known keys.
        is_open: Other keys may be right, too: a constructor keeps its ``**kwargs`` to itself, or
            the keys are names of the author's.
    """

    names: frozenset[str] = frozenset()
    is_open: bool = False


def signature_of(target: Callable[..., Any]) -> Signature:
    """Collect the keyword arguments of a class or function.

    A constructor with ``**kwargs`` passes them to its bases, so their names are taken too: of all
    bases, since some classes call past the first of several (mmdet's VFNetHead).

    Args:
        target: What a registry holds: a class or a function.
    """
    if inspect.isclass(target):
        return _of_class(target) or Signature()
    return Signature(*_keywords(target))


def _of_class(cls: type) -> Signature | None:
    """Return the keys that a class takes; None if no class of ours or mmdet's has a constructor."""
    if cls in (object, nn.Module):
        return None
    has_own = '__init__' in vars(cls)
    names, passes_on = _keywords(vars(cls)['__init__']) if has_own else (frozenset(), True)
    if not passes_on:
        return Signature(names)
    bases = [base for base in map(_of_class, cls.__bases__) if base is not None]
    if not has_own:
        if not bases:
            return None
        # Python calls the constructor of the first base only, unless that one passes keywords on.
        closed = next((i for i, base in enumerate(bases) if not base.is_open), len(bases))
        bases = bases[: closed + 1]
    return Signature(
        names.union(*(base.names for base in bases)), all(base.is_open for base in bases)
    )


def _keywords(function: Callable[..., Any]) -> tuple[frozenset[str], bool]:
    """Return the keyword names of a function, and whether it has ``**kwargs``."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built in, without a signature: any key may be right
        return frozenset(), True
    keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = frozenset(p.name for p in parameters if p.kind in keyword) - {'self'}
    return names, any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _words(text: str, is_open: bool = False) -> Signature:
    return Signature(frozenset(text.split()), is_open)


# Dicts without a type, by the last key of their place.
_HEAD_CFG = _words(
    'type assigner ga_assigner reg_assigner sampler allowed_border pos_weight loss_weight debug '
    'rpn rpn_proposal rcnn '
    'nms_pre min_bbox_size score_thr nms max_per_img max_per_image mask_thr_binary mask_size',
    True,
)
_DATALOADER = Signature(
    signature_of(DataLoader).names | {'num_batch_per_epoch', 'disable_subprocess_warning'}
)
_PLAIN_DICTS: dict[str, Signature] = {
    'train_dataloader': _DATALOADER,
    'val_dataloader': _DATALOADER,
    'test_dataloader': _DATALOADER,
    'randomness': signature_of(Runner.set_randomness),
    'auto_scale_lr': _words('enable base_batch_size'),
    'default_hooks': _words(
        'runtime_info timer sampler_seed logger param_scheduler checkpoint visualization', True
    ),
    'env_cfg': _words('cudnn_benchmark mp_cfg dist_cfg resource_limit'),
    'mp_cfg': _words('mp_start_method opencv_num_threads', True),
    'dist_cfg': _words('backend timeout', True),
    'custom_imports': _words('imports allow_failed_imports'),
    'filter_cfg': _words('filter_empty_gt min_size bbox_min_size', True),
    'metainfo': _words('classes palette', True),
    'data_prefix': _words('img img_path sub_data_root', True),
    'custom_keys': Signature(is_open=True),
    **dict.fromkeys(('train_cfg', 'test_cfg', 'rpn', 'rpn_proposal', 'rcnn'), _HEAD_CFG),
    'clip_grad': _words('type max_norm norm_type clip_value', True),
    'paramwise_cfg': _words(
        'custom_keys bias_lr_mult bias_decay_mult norm_decay_mult dwconv_decay_mult '
        'flat_decay_mult bypass_duplicate dcn_offset_lr_mult '
        'num_layers decay_rate decay_type '  # mmdet's layer-wise constructor
        'layer_decay'  # ours
    ),
}


# Entries of `custom_keys`, whose names are the author's.
_CUSTOM_KEY = _words('lr_mult decay_mult clip_rows', True)


def plain_keys(place: str) -> Signature:
    """Return the keys of a dict without a type, by its place in the config."""
    if '.custom_keys.' in place:
        return _CUSTOM_KEY
    return _PLAIN_DICTS.get(place.rpartition('.')[2], _words('type', True))


# What the builder of a type takes out of its dict before the constructor is called.
BUILDER_KEYS = _words('type _scope_ priority constructor paramwise_cfg convert_to_iter_based').names
# The same for types of mmdet's and mmengine's only: norm layers, initializers, loops, NMS.
FOREIGN_BUILDER_KEYS = _words(
    'requires_grad override name by_epoch class_agnostic split_thr max_num bg_cls_weight '
    'deformable_groups'
).names
# Top-level names that the runner, its builders or our tools read.
TOP_LEVEL_KEYS = signature_of(Runner).names - {'cfg'} | _words(
    'tta_model tta_pipeline vis_backends model_wrapper_cfg custom_imports image_size runner_type '
    'sync_bn find_unused_parameters compile activation_checkpointing efficient_conv_bn_eval'
).names  # fmt: skip
