# Pascal VOC 2012 from a COCO checkpoint, as in section 8 of google/automl efficientdet/README.md
# (the reference): 50 epochs, backbone and BiFPN frozen. Classes that COCO has, too, start from its
# weights. data/VOCdevkit/VOC2012 has Annotations, ImageSets and JPEGImages; tools/convert.py makes
# the checkpoint.
# tools/train.py configs/efficientdet/d0_voc2012.py
_base_ = './d0_coco.py'

load_from = 'checkpoints/d0_coco.pth'
data_root = 'data/VOCdevkit/'

model = dict(
    # '(efficientnet|fpn_cells|resample_p6)' in the reference, which still updates the statistics of
    # frozen BN: freeze_norm_statistics=False. freeze=None trains everything: use a tenth of the
    # learning rate then, see docs/fine_tune.md.
    freeze='^(backbone|neck)',
    bbox_head=dict(num_classes=20),
)

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            _delete_=True,
            type='VOCDataset',
            data_root=data_root,
            ann_file='VOC2012/ImageSets/Main/train.txt',
            data_prefix=dict(sub_data_root='VOC2012/'),
            filter_cfg=dict(filter_empty_gt=False, min_size=0),
        )
    )
)
val_dataloader = test_dataloader = dict(
    dataset=dict(
        dataset=dict(
            _delete_=True,
            type='VOCDataset',
            data_root=data_root,
            ann_file='VOC2012/ImageSets/Main/val.txt',
            data_prefix=dict(sub_data_root='VOC2012/'),
            test_mode=True,
        )
    )
)
val_evaluator = test_evaluator = dict(
    _delete_=True, type='VOCMetric', metric='mAP', eval_mode='area'
)

train_cfg = dict(max_epochs=50, val_interval=1)
default_hooks = dict(checkpoint=dict(save_best='pascal_voc/mAP', rule='greater'))
custom_hooks = [
    *_base_.custom_hooks,
    # mmengine's default min_delta, 0.1, stops a training that gains less than 10 AP in five epochs.
    dict(
        type='EarlyStoppingHook',
        monitor='pascal_voc/mAP',
        rule='greater',
        patience=5,
        min_delta=0.001,
        strict=True,
    ),
]
