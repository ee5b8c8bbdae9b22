"""Which types a config may name at each place, and which keys they take."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from mmdet import registry
from mmengine.registry import FUNCTIONS, Registry
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

# Where the types at a place are registered; the first registry that has a type decides.
Registries = tuple[Registry, ...]

MODEL = (registry.MODELS, registry.TASK_UTILS)
DATASET = (registry.DATASETS,)
TRANSFORM = (registry.TRANSFORMS,)
METRIC = (registry.METRICS, registry.EVALUATOR, registry.TASK_UTILS)
OPTIM_WRAPPER = (registry.OPTIM_WRAPPERS,)
SCHEDULER = (registry.PARAM_SCHEDULERS,)
HOOK = (registry.HOOKS,)
VISUALIZER = (registry.VISUALIZERS,)
VIS_BACKEND = (registry.VISBACKENDS,)
RUNNER = (registry.RUNNERS,)
PLAIN: Registries = ()  # a dict without a type: the config itself, a data loader

# Keys whose values have types of other registries than the dict around them.
_BELOW: dict[Registries, dict[str, Registries]] = {
    PLAIN: {
        **dict.fromkeys(('model', 'data_preprocessor', 'tta_model'), MODEL),
        **dict.fromkeys(('sampler', 'batch_sampler'), (registry.DATA_SAMPLERS,)),
        **dict.fromkeys(('collate_fn', 'worker_init_fn'), (FUNCTIONS,)),
        **dict.fromkeys(('val_evaluator', 'test_evaluator'), METRIC),
        **dict.fromkeys(('train_cfg', 'val_cfg', 'test_cfg'), (registry.LOOPS,)),
        **dict.fromkeys(('default_hooks', 'custom_hooks'), HOOK),
        'dataset': DATASET,
        'tta_pipeline': TRANSFORM,
        'optim_wrapper': OPTIM_WRAPPER,
        'param_scheduler': SCHEDULER,
        'visualizer': VISUALIZER,
        'vis_backends': VIS_BACKEND,
        'log_processor': (registry.LOG_PROCESSORS,),
        'model_wrapper_cfg': (registry.MODEL_WRAPPERS,),
    },
    DATASET: {'pipeline': TRANSFORM},
    HOOK: {'switch_pipeline': TRANSFORM},
    MODEL: {'init_cfg': (registry.WEIGHT_INITIALIZERS,)},
    OPTIM_WRAPPER: {'optimizer': (registry.OPTIMIZERS,)},
    VISUALIZER: {'vis_backends': VIS_BACKEND},
}


def registries_below(registries: Registries, key: str) -> Registries:
    """Return the registries of the types under a key, given those of the dict that has the key."""
    return _BELOW.get(registries, {}).get(key, registries)


class Signature(NamedTuple):
    """The keywords that a class or function takes.

    Attributes:
        names: Keyword arguments by name.
        is_open: No base class limits the ``**kwargs``, so any key may be right.
    """

    names: frozenset[str] = frozenset()
    is_open: bool = False


@cache
def signature_of(target: Callable[..., Any]) -> Signature:
    """Collect the keyword arguments of a class or function.

    A constructor with ``**kwargs`` passes them to its bases, so the names of these are included:
    of all bases, since some classes skip the first of several (mmdet's VFNetHead).

    Args:
        target: What a registry holds: a class or a function.
    """
    if inspect.isclass(target):
        return _of_class(target) or Signature()
    return _keywords(target)


def _of_class(cls: type) -> Signature | None:
    """Return the keys of a class; None if no base but ``nn.Module`` has a constructor."""
    if cls in (object, nn.Module):
        return None
    has_own = '__init__' in vars(cls)
    own = _keywords(vars(cls)['__init__']) if has_own else Signature(is_open=True)
    if not own.is_open:
        return own
    bases = [base for base in map(_of_class, cls.__bases__) if base is not None]
    if not has_own:
        if not bases:
            return None
        # Python calls the constructor of the first base only, unless that one passes keywords on.
        closed = next((i for i, base in enumerate(bases) if not base.is_open), len(bases))
        bases = bases[: closed + 1]
    names = own.names.union(*(base.names for base in bases))
    return Signature(names, all(base.is_open for base in bases))


def _keywords(function: Callable[..., Any]) -> Signature:
    """Return the keyword names of a function, and whether it has ``**kwargs``."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built in, without a signature: any key may be right
        return Signature(is_open=True)
    keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = frozenset(p.name for p in parameters if p.kind in keyword) - {'self'}
    return Signature(names, any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters))


@dataclass(frozen=True)
class Keys:
    """The keys of a dict in a config.

    Attributes:
        names: The known keys.
        others: How to judge an unknown key. ``'wrong'``: an error. ``'unusual'``: an error on a
            command line, and in a file if it is similar to a known key. ``'free'``: an error if it
            is similar to a known key.
    """

    names: frozenset[str]
    others: str = 'wrong'


def _words(text: str, others: str = 'wrong') -> Keys:
    return Keys(frozenset(text.split()), others)


# Keys of dicts without a type, by the last key of their place in the config.
_PLAIN_DICTS: dict[str, Keys] = {
    **dict.fromkeys(
        ('train_dataloader', 'val_dataloader', 'test_dataloader'),
        Keys(
            signature_of(DataLoader).names | {'num_batch_per_epoch', 'disable_subprocess_warning'}
        ),
    ),
    **dict.fromkeys(
        ('train_cfg', 'test_cfg', 'rpn', 'rpn_proposal', 'rcnn'),  # of a model
        _words(
            'type assigner ga_assigner reg_assigner sampler ga_sampler allowed_border pos_weight '
            'loss_weight debug rpn rpn_proposal rcnn nms_pre min_bbox_size score_thr nms '
            'max_per_img max_per_image mask_thr_binary mask_size',
            'unusual',
        ),
    ),
    'randomness': Keys(signature_of(Runner.set_randomness).names),
    'auto_scale_lr': _words('enable base_batch_size'),
    'default_hooks': _words(
        'runtime_info timer sampler_seed logger param_scheduler checkpoint visualization', 'unusual'
    ),
    'env_cfg': _words('cudnn_benchmark mp_cfg dist_cfg resource_limit'),
    'mp_cfg': _words('mp_start_method opencv_num_threads', 'free'),
    'dist_cfg': _words('backend timeout', 'free'),
    'custom_imports': _words('imports allow_failed_imports'),
    'filter_cfg': _words('filter_empty_gt min_size bbox_min_size', 'unusual'),
    'metainfo': _words('classes palette', 'free'),
    'data_prefix': _words('img img_path sub_data_root', 'free'),
    'clip_grad': _words('type max_norm norm_type clip_value', 'unusual'),
    'custom_keys': _words('', 'free'),
    'paramwise_cfg': _words(
        'custom_keys bias_lr_mult bias_decay_mult norm_decay_mult dwconv_decay_mult '
        'flat_decay_mult bypass_duplicate dcn_offset_lr_mult '
        'num_layers decay_rate decay_type '  # mmdet's layer-wise constructor
        'layer_decay'  # ours
    ),
}


def plain_keys(place: str) -> Keys:
    """Return the keys of a dict without a type, by its place in the config."""
    if '.custom_keys.' in place:  # an entry, whose own key is part of a parameter's name
        return _words('lr_mult decay_mult clip_rows', 'free')
    others = 'free' if place.endswith(('_kwargs', '_args')) else 'unusual'
    return _PLAIN_DICTS.get(place.rpartition('.')[2], _words('type', others))


# Keys that the builder of a type takes out of its dict before it calls the constructor.
_BUILDER_KEYS = _words(
    'type _scope_ priority constructor paramwise_cfg convert_to_iter_based'
).names
# The same, for types of mmdet and mmengine only: norm layers, initializers, loops, NMS.
_FOREIGN_BUILDER_KEYS = _words(
    'requires_grad override name by_epoch class_agnostic split_thr max_num bg_cls_weight '
    'deformable_groups'
).names


def type_keys(target: Callable[..., Any]) -> Keys:
    """Return the keys of a dict whose type is ``target``."""
    signature = signature_of(target)
    names = signature.names | _BUILDER_KEYS
    if target.__module__.startswith('effdet_plugin.'):
        return Keys(names, 'free' if signature.is_open else 'wrong')
    # mmdet's types take keys out of their dicts in many ways.
    return Keys(names | _FOREIGN_BUILDER_KEYS, 'free' if signature.is_open else 'unusual')


# Top-level names that the runner, its builders or our tools read.
TOP_LEVEL_KEYS = signature_of(Runner).names - {'cfg'} | _words(
    'tta_model tta_pipeline vis_backends model_wrapper_cfg custom_imports image_size runner_type '
    'sync_bn find_unused_parameters compile activation_checkpointing efficient_conv_bn_eval'
).names  # fmt: skip
