# EfficientDet-Lite0: 3,243,470 parameters and 0.97G multiply-adds of convolutions at 90 classes,
# 320x320. The reference's AP on COCO val2017: 26.41 (google/automl, efficientdet/README.md).
# tools/train.py configs/efficientdet/lite0_coco.py
_base_ = ['_base_/model_lite.py', '_base_/coco.py', '_base_/schedule_300e.py', '_base_/runtime.py']

image_size = (320, 320)
model = dict(
    backbone=dict(model_name='tf_efficientnet_lite0'),
    neck=dict(in_channels=[40, 112, 320], out_channels=64, num_cells=3),
    bbox_head=dict(in_channels=64, stacked_convs=3),
)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
