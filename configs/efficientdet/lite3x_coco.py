# EfficientDet-Lite3x: 9,280,862 parameters and 13.98G multiply-adds of convolutions at 90 classes,
# 640x640. The reference's AP on COCO val2017: 42.64 (google/automl, efficientdet/README.md).
# tools/train.py configs/efficientdet/lite3x_coco.py
_base_ = ['_base_/model_lite.py', '_base_/coco.py', '_base_/schedule_300e.py', '_base_/runtime.py']

image_size = (640, 640)
model = dict(
    backbone=dict(model_name='tf_efficientnet_lite3'),
    neck=dict(in_channels=[48, 136, 384], out_channels=200, num_cells=6),
    bbox_head=dict(in_channels=200, stacked_convs=4),
)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
