# COCO 2017 in its usual folders: data/coco/{annotations,train2017,val2017}.
data_root = 'data/coco/'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ToRGB'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ScaleJitterCrop', ratio_range=(0.1, 2.0)),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ToRGB'),
    dict(type='LetterBox', resize_dtype='float32'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=(
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
            'resize_mode',
        ),
    ),
]

train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),  # one tensor to the device, not one per image
    dataset=dict(
        type='EfficientDetDataset',
        image_size=(512, 512),
        dataset=dict(
            type='CocoDataset',
            data_root=data_root,
            ann_file='annotations/instances_train2017.json',
            data_prefix=dict(img='train2017/'),
            # Images without boxes are kept, as negatives.
            filter_cfg=dict(filter_empty_gt=False, min_size=0),
        ),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='EfficientDetDataset',
        image_size=(512, 512),
        dataset=dict(
            type='CocoDataset',
            data_root=data_root,
            ann_file='annotations/instances_val2017.json',
            data_prefix=dict(img='val2017/'),
            test_mode=True,
        ),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='CocoTwelveMetric',  # COCO's 12 metrics at 1, 10 and 100 detections
    ann_file=data_root + 'annotations/instances_val2017.json',
)
test_evaluator = val_evaluator
