# EfficientDet-D0: 3,880,067 parameters and 2.49G multiply-adds of convolutions at 90 classes,
# 512x512. The reference's AP on COCO val2017: 34.3 (google/automl, efficientdet/README.md).
# tools/train.py configs/efficientdet/d0_coco.py
_base_ = ['_base_/model.py', '_base_/coco.py', '_base_/schedule_300e.py', '_base_/runtime.py']

image_size = (512, 512)
model = dict(
    backbone=dict(model_name='tf_efficientnet_b0'),
    neck=dict(in_channels=[40, 112, 320], out_channels=64, num_cells=3),
    bbox_head=dict(in_channels=64, stacked_convs=3),
)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
