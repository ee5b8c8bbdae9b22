# EfficientDet-Lite1: 4,248,318 parameters and 1.97G multiply-adds of convolutions at 90 classes,
# 384x384. The reference's AP on COCO val2017: 31.5 (google/automl, efficientdet/README.md).
# tools/train.py configs/efficientdet/lite1_coco.py
_base_ = ['_base_/model_lite.py', '_base_/coco.py', '_base_/schedule_300e.py', '_base_/runtime.py']

image_size = (384, 384)
model = dict(
    backbone=dict(model_name='tf_efficientnet_lite1'),
    neck=dict(in_channels=[40, 112, 320], out_channels=88, num_cells=4),
    bbox_head=dict(in_channels=88, stacked_convs=3),
)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
