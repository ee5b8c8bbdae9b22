# EfficientDet-Lite2: 5,252,334 parameters and 3.37G multiply-adds of convolutions at 90 classes,
# 448x448. The reference's AP on COCO val2017: 35.06 (google/automl, efficientdet/README.md).
# tools/train.py configs/efficientdet/lite2_coco.py
_base_ = ['_base_/model_lite.py', '_base_/coco.py', '_base_/schedule_300e.py', '_base_/runtime.py']

image_size = (448, 448)
model = dict(
    backbone=dict(model_name='tf_efficientnet_lite2'),
    neck=dict(in_channels=[48, 120, 352], out_channels=112, num_cells=5),
    bbox_head=dict(in_channels=112, stacked_convs=3),
)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
