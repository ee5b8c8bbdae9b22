# EfficientDet-Lite3: 8,350,862 parameters and 7.48G multiply-adds of convolutions at 90 classes,
# 512x512. The reference's AP on COCO val2017: 38.77 (google/automl, efficientdet/README.md).
# tools/train.py configs/efficientdet/lite3_coco.py
_base_ = ['_base_/model_lite.py', '_base_/coco.py', '_base_/schedule_300e.py', '_base_/runtime.py']

image_size = (512, 512)
model = dict(
    backbone=dict(model_name='tf_efficientnet_lite3'),
    neck=dict(in_channels=[48, 136, 384], out_channels=160, num_cells=6),
    bbox_head=dict(in_channels=160, stacked_convs=4, anchor_generator=dict(octave_base_scale=4.0)),
)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
