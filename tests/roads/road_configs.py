"""What a person writes to have our parts in four of mmdet's detectors: config text by name."""

CLASSES = ('square', 'disc')
# Backbone, neck and checkpoints, the same for all. Plain checkpoints, since torch 2.6 and later do
# not load those of mmengine's own hook.
_PARTS = """
custom_imports = dict(imports=['effdet_plugin'], allow_failed_imports=False)
runner_type = 'mmdet.EfficientDetRunner'
default_hooks = dict(
    checkpoint=dict(_delete_=True, type='AtomicCheckpointHook', interval=1),
    logger=dict(interval=1),
)
model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3, bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='TimmBackbone',
        model_name='tf_efficientnet_lite0',
        out_indices=(2, 3, 4),
        pretrained='package',
    ),
    neck=dict(
        _delete_=True,
        type='BiFPN',
        in_channels=[40, 112, 320],
        out_channels=channels,
        num_outs=levels,
        norm_momentum=0.1,
    ),
    bbox_head=dict(
        num_classes=2, in_channels=channels, feat_channels=64, stacked_convs=1, **losses
    ),
    test_cfg=dict(score_thr=0.0),  # after 10 steps all scores are low
)
param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=False)]  # no warm-up
data = dict(data_root='', metainfo=dict(classes=('square', 'disc')))
val_data = dict(ann_file='val.json', data_prefix=dict(img='val/'), **data)
small = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs=1, val_interval=1)
val_evaluator = dict(ann_file='val.json')
test_evaluator = val_evaluator
"""
_COCO = """
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(160, 160), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 160), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_data = dict(ann_file='train.json', data_prefix=dict(img='train/'), **data)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **train_data), **small)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **val_data), **small)
test_dataloader = val_dataloader
"""
_ASSIGNER = """
model['train_cfg'] = dict(
    assigner=dict(_delete_=True, type='BatchMaxIoUAssigner', pos_iou_thr=0.5)
)
"""
_FOCAL = "loss_cls=dict(_delete_=True, type='SigmoidFocalLoss', use_sigmoid=True, gamma=1.5)"

_RETINANET = f"""
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
channels, levels = 64, 5
losses = dict(
    {_FOCAL},
    loss_bbox=dict(_delete_=True, type='HuberLoss', delta=0.1, loss_weight=12.5),
)
"""
_FCOS = f"""
_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
channels, levels = 64, 5
losses = dict(
    {_FOCAL},
    loss_bbox=dict(_delete_=True, type='BoxIoULoss', mode='giou'),
)
"""
_ATSS = f"""
_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
channels, levels = 64, 5
losses = dict(
    {_FOCAL},
    loss_bbox=dict(_delete_=True, type='BoxIoULoss', mode='giou', loss_weight=2.0),
)
"""
# Its class scores are soft and its assigner is a part of it: backbone, neck and box loss are ours.
_YOLOX = """
_base_ = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
channels, levels = 96, 3
losses = dict(
    loss_bbox=dict(_delete_=True, type='BoxIoULoss', mode='iou', reduction='sum', loss_weight=5.0)
)
"""
_YOLOX_DATA = """
size = (160, 160)
pad = dict(type='Pad', pad_to_square=True, pad_val=dict(img=(114.0, 114.0, 114.0)))
train_pipeline = [
    dict(type='Mosaic', img_scale=size, pad_val=114.0),
    dict(type='RandomAffine', scaling_ratio_range=(0.5, 1.5), border=(-80, -80)),
    dict(type='YOLOXHSVRandomAug'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='Resize', scale=size, keep_ratio=True),
    pad,
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), keep_empty=False),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=size, keep_ratio=True),
    pad,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_data = dict(ann_file='train.json', data_prefix=dict(img='train/'), **data)
train_dataloader = dict(
    batch_size=2, dataset=dict(pipeline=train_pipeline, dataset=train_data), **small
)
val_dataloader = dict(batch_size=1, dataset=dict(pipeline=test_pipeline, **val_data), **small)
test_dataloader = val_dataloader
model['data_preprocessor']['batch_augments'] = None
"""

CONFIGS = {
    'retinanet': _RETINANET + _PARTS + _COCO + _ASSIGNER,
    'fcos': _FCOS + _PARTS + _COCO,
    'atss': _ATSS + _PARTS + _COCO + _ASSIGNER,
    'yolox': _YOLOX + _PARTS + _YOLOX_DATA,
}
