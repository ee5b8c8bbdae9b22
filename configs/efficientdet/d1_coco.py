# EfficientDet-D1: 6,625,898 parameters and 6.00G multiply-adds of convolutions at 90 classes,
# 640x640. The reference's AP on COCO val2017: 40.2 (google/automl, efficientdet/README.md).
# tools/train.py configs/efficientdet/d1_coco.py
_base_ = ['_base_/model.py', '_base_/coco.py', '_base_/schedule_300e.py', '_base_/runtime.py']

image_size = (640, 640)
model = dict(
    backbone=dict(model_name='tf_efficientnet_b1', drop_path_rate=0.2),
    neck=dict(in_channels=[40, 112, 320], out_channels=88, num_cells=4),
    bbox_head=dict(in_channels=88, stacked_convs=3),
)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
