"""Which types a config may name at which place, which keys they take, and what was meant else."""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

from mmcv import ops
from mmdet import registry
from mmengine.config import Config
from mmengine.registry import FUNCTIONS, Registry
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from effdet_plugin.errors import ConfigError
from effdet_plugin.other_names import PATHS

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
SIZE_KEY = 'image_size'
RESIZE_KEY = 'resize_mode'
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


def needs_type(path: str, registries: Registries) -> bool:
    """Whether a dict at this place must have a type: an entry of hooks, pipelines, ..."""
    parent, _, name = path.rpartition('.')
    if registries in (HOOK, TRANSFORM, SCHEDULER, METRIC):
        return parent == 'default_hooks' or name.isdigit()
    return path == 'model' or name == 'dataset'


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
    'tta_model tta_pipeline vis_backends model_wrapper_cfg custom_imports image_size resize_mode '
    'runner_type sync_bn find_unused_parameters compile activation_checkpointing '
    'efficient_conv_bn_eval report'
).names  # fmt: skip


def paths_meant(key: str) -> list[str]:
    """Return the usual places of a setting by any of its names, the most usual first.

    Args:
        key: As somebody wrote it: ``learning_rate``, ``batchSize``.

    Returns:
        Dotted paths, ``['optim_wrapper.optimizer.lr']``; nothing for an unknown name. Not every
        config has each of them.
    """
    return PATHS.get(key.lower().replace('_', '').replace('-', ''), [])


def keys_meant(key: str) -> list[str]:
    """Return what configs call a setting, without its place: ``['lr']`` for ``learning_rate``."""
    return list(dict.fromkeys(path.rpartition('.')[2] for path in paths_meant(key)))


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


NEAR = 0.75  # similarity from which an unknown key is taken for a misspelt one


def misspelt(key: str, names: Iterable[str], cutoff: float = NEAR) -> list[str]:
    """Return the name that a key was probably meant to be, if there is one."""
    names = list(names)
    anagrams = [name for name in names if sorted(name) == sorted(key)]  # 'rl' for 'lr'
    return get_close_matches(key, anagrams or names, n=1, cutoff=0 if anagrams else cutoff)


def keys_of(node: Mapping[str, Any], registries: Registries, path: str) -> Keys:
    """Return the keys that a dict of a config may have.

    Args:
        node: The dict.
        registries: Where types of its place are registered.
        path: Its place in the config, for the message.

    Raises:
        ConfigError: None of the registries has its type.
    """
    if not registries or not isinstance(node.get('type'), (str, type)):
        return plain_keys(path)
    keys = type_keys(find_type(node['type'], registries, f'{path}.type'))
    if not node.get('ema_type'):
        return keys
    # EMAHook passes its other keys to the averaged model.
    average = type_keys(find_type(node['ema_type'], MODEL, f'{path}.ema_type'))
    return Keys(keys.names | average.names, average.others)


def find_type(
    name: str | Callable[..., Any], registries: Registries, path: str
) -> Callable[..., Any]:
    """Look up a type in the registries of its place (for a model, also in mmcv.ops).

    Args:
        name: As a config has it: a registered name, or the type itself.
        registries: Those of the place.
        path: The place, for the message.

    Raises:
        ConfigError: None of the registries has it.
    """
    if not isinstance(name, str):
        return name
    for one in registries:
        found = one.get(name)
        if found is not None:
            return found
    if registries == MODEL and hasattr(ops, name):
        return getattr(ops, name)
    scope, _, own_name = name.rpartition('.')
    hint, package = hint_of_type(own_name, registries), scope.split('.')[0]
    if package and package not in sys.modules:
        state = 'not imported: does "import" work?' if find_spec(package) else 'not installed'
        hint = f': the package {package} is {state}'
    raise ConfigError(f'{path}: no {registries[0].name} of the name {name!r} is registered{hint}')


def hint_of_type(name: str, registries: Registries) -> str:
    """Return a hint at the registered name meant, or at a component that is not imported."""
    known: set[str] = set()
    for one in registries:
        while one is not None:
            known |= one.module_dict.keys()
            one = one.parent
    # Among hundreds of names one is always similar: a hint must be more similar here.
    near = get_close_matches(name, known, n=1, cutoff=0.65) or [k for k in known if name in k]
    return nearest(name, near) if near else '; is its file in custom_imports?'


def dicts_below(node: Any, place: str = '') -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the content of every dict of a config, the outer ones first.

    Args:
        node: A config, or any part of one.
        place: Dotted path of ``node``, '' for a whole config.
    """
    if isinstance(node, Config):
        node = node._cfg_dict
    if isinstance(node, dict):
        yield place, node
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in items:
        if isinstance(child, (dict, list, tuple)):
            yield from dicts_below(child, f'{place}.{key}' if place else str(key))
