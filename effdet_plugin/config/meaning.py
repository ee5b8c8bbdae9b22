"""Suggestions for a name that a config does not know: by its letters, and by its meaning."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from effdet_plugin.config.dataset_nodes import dicts_below
from effdet_plugin.config.schema import TOP_LEVEL_KEYS

_MAX_PLACES = 3  # named in a suggestion
# Path in a config: other names of the same setting, as other frameworks and older mmdet have them.
_NAMES = {
    'optim_wrapper.optimizer.lr': 'lr learning_rate lr0 base_lr initial_lr start_lr max_lr',
    'optim_wrapper.optimizer.weight_decay': 'wd weight_decay decay l2',
    'optim_wrapper.optimizer.momentum': 'momentum',
    'optim_wrapper.optimizer.type': 'optimizer_type optimizer_name',
    'optim_wrapper.optimizer': 'optimizer optim optimiser',
    'optim_wrapper.clip_norm': 'grad_clip clip_grad clip_norm clip_gradients max_norm',
    'optim_wrapper.clip_grad.max_norm': 'grad_clip clip_grad clip_norm clip_gradients max_norm',
    'optim_wrapper.accumulative_counts': (
        'accumulate accumulation accumulate_grad_batches gradient_accumulation cumulative_iters '
        'gradient_accumulation_steps accumulative_counts accumulation_steps'
    ),
    'train_cfg.max_epochs': (
        'epochs epoch num_epochs n_epochs max_epoch max_epochs total_epochs train_epochs'
    ),
    'train_cfg.max_iters': 'iterations iters max_iters num_iters steps max_steps num_steps',
    'train_cfg.val_interval': 'val_interval eval_interval evaluation_interval eval_period',
    'train_dataloader.batch_size': (
        'batch_size batch bs samples_per_gpu train_batch_size ims_per_batch imgs_per_gpu'
    ),
    'val_dataloader.batch_size': 'val_batch_size eval_batch_size test_batch_size',
    'train_dataloader.num_workers': 'workers num_workers n_workers workers_per_gpu',
    'train_dataloader.dataset.data_root': 'data_root',
    'image_size': 'image_size img_size imgsz input_size image_shape img_shape resolution img_scale',
    'model.bbox_head.num_classes': 'num_classes num_class nc n_classes number_of_classes',
    'model.backbone.pretrained': 'pretrained pretrained_weights imagenet_weights',
    'model.test_cfg.score_thr': 'score_thr conf conf_thres confidence score_threshold',
    'model.test_cfg.nms.iou_threshold': 'iou_thr iou_threshold nms_thr nms_iou iou_thres',
    'model.bbox_head.postprocessor.score_thr': 'score_thr conf conf_thres confidence',
    'model.bbox_head.postprocessor.iou_thr': 'iou_thr iou_threshold nms_thr nms_iou iou_thres',
    'model.test_cfg.max_per_img': 'max_per_img max_det max_detections max_dets',
    'model.bbox_head.postprocessor.max_per_img': 'max_per_img max_det max_detections max_dets',
    'load_from': 'weights checkpoint ckpt load_checkpoint init_checkpoint',
    'work_dir': 'output_dir out_dir save_dir log_dir output',
    'randomness.seed': 'seed random_seed',
    'default_hooks.checkpoint.interval': 'save_interval checkpoint_interval save_period',
    'default_hooks.logger.interval': 'log_interval print_interval log_every',
    'param_scheduler.0.warmup_epochs': 'warmup warmup_epochs num_warmup_epochs',
}  # fmt: skip


def _plain(name: str) -> str:
    return name.lower().replace('_', '').replace('-', '')


_PATHS: dict[str, list[str]] = {}
for _path, _words in _NAMES.items():
    for _word in _words.split():
        _PATHS.setdefault(_plain(_word), []).append(_path)


def paths_meant(key: str) -> list[str]:
    """Return the usual places of a setting by any of its names, the most usual first.

    Args:
        key: As somebody wrote it: ``learning_rate``, ``batchSize``.

    Returns:
        Dotted paths, ``['optim_wrapper.optimizer.lr']``; nothing for an unknown name. Not every
        config has each of them.
    """
    return _PATHS.get(_plain(key), [])


def keys_meant(key: str) -> list[str]:
    """Return what configs call a setting, without its place: ``['lr']`` for ``learning_rate``."""
    return list(dict.fromkeys(path.rpartition('.')[2] for path in paths_meant(key)))


def places_with(cfg: Mapping[str, Any], key: str) -> list[str]:
    """Return the dotted paths at which a config has a key, at most three.

    What validation and test have as well as training is named for training only.
    """
    found = [f'{place}.{key}' for place, node in dicts_below(cfg) if place and key in node]
    found = [path for path in found if path.split('.')[0] in TOP_LEVEL_KEYS]
    trained = [path for path in found if not path.startswith(('val_', 'test_', 'tta_'))]
    return (trained or found)[:_MAX_PLACES]


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
