"""How other frameworks, and older versions of mmdet, call the settings of a config."""

from collections.abc import Iterable
from difflib import get_close_matches

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
    'custom_hooks': 'early_stop early_stopping patience early_stopping_patience callbacks hooks',
    'param_scheduler': 'lr_config lr_scheduler lr_schedule scheduler schedule sched',
    'param_scheduler.0.warmup_epochs': 'warmup warmup_epochs num_warmup_epochs',
}  # fmt: skip

# What no config has: other names of an option of the commands, and that option.
OPTIONS = {
    **dict.fromkeys(['device', 'devices', 'gpu', 'gpus', 'gpu_id', 'gpu_ids'], '--device'),
    **dict.fromkeys(['amp', 'fp16', 'half', 'mixed_precision', 'precision'], '--amp of a training'),
    **dict.fromkeys(['resume_from', 'auto_resume'], '--resume of a training'),
}

# The usual places of a setting by any of its names without word breaks, the most usual first.
PATHS: dict[str, list[str]] = {}
for _path, _others in _NAMES.items():
    for _word in _others.split():
        PATHS.setdefault(_word.replace('_', ''), []).append(_path)


def option_for(word: str, options: Iterable[str]) -> str:
    """Return the option that a word such as ``--num-epochs`` means, or sets in the config; or ''.

    Args:
        word: An option that a command does not have.
        options: Those that it has.
    """
    known = {_bare(option): option for option in options}
    name = _bare(word.split('=')[0])
    for path in PATHS.get(name, ()):
        for other in _NAMES[path].split():
            if _bare(other) in known:
                return known[_bare(other)]
        if 'cfgoptions' in known:
            return f'--cfg-options {path}=VALUE'
    meant = next((x.split()[0] for other, x in OPTIONS.items() if _bare(other) == name), '')
    near = get_close_matches(name, known, 1)
    return meant if _bare(meant) in known else known[near[0]] if near else ''


def _bare(word: str) -> str:
    return word.replace('-', '').replace('_', '').lower()
