# EfficientDet-Lite4: 15,130,894 parameters and 20.17G multiply-adds of convolutions at 90 classes,
# 640x640. The reference's AP on COCO val2017: 43.18 (google/automl, efficientdet/README.md).
# tools/train.py configs/efficientdet/lite4_coco.py
_base_ = ['_base_/model_lite.py', '_base_/coco.py', '_base_/schedule_300e.py', '_base_/runtime.py']

image_size = (640, 640)
model = dict(
    backbone=dict(model_name='tf_efficientnet_lite4'),
    neck=dict(in_channels=[56, 160, 448], out_channels=224, num_cells=7),
    bbox_head=dict(in_channels=224, stacked_convs=4, anchor_generator=dict(octave_base_scale=4.0)),
)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
