# Own data in Pascal VOC folders, with mmdet's own dataset and metric; paths are set by hand.
# The example is BCCD (three kinds of blood cells): data_root has JPEGImages, Annotations and
# ImageSets, as in its git repository.
# tools/train.py configs/efficientdet/custom_voc.py
# With custom_coco.py and --data DIR nothing has to be set: VOC is converted to COCO JSON.
_base_ = './custom_coco.py'

data_root = 'data/bccd/'
classes = ('RBC', 'WBC', 'Platelets')

model = dict(bbox_head=dict(num_classes=len(classes)))

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            _delete_=True,
            type='VOCDataset',
            metainfo=dict(classes=classes),
            data_root=data_root,
            ann_file='ImageSets/Main/train.txt',
            data_prefix=dict(sub_data_root=''),
            filter_cfg=dict(filter_empty_gt=False, min_size=0),
        )
    )
)
val_dataloader = test_dataloader = dict(
    dataset=dict(
        dataset=dict(
            _delete_=True,
            type='VOCDataset',
            metainfo=dict(classes=classes),
            data_root=data_root,
            ann_file='ImageSets/Main/val.txt',
            data_prefix=dict(sub_data_root=''),
            test_mode=True,
        )
    )
)
val_evaluator = test_evaluator = dict(
    _delete_=True, type='VOCMetric', metric='mAP', eval_mode='area'
)
default_hooks = dict(checkpoint=dict(save_best='pascal_voc/mAP', rule='greater'))
