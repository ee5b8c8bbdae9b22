# EfficientDet-D5: 33,653,315 parameters and 134.13G multiply-adds of convolutions at 90 classes,
# 1280x1280. The reference's AP on COCO val2017: 51.2 (google/automl, efficientdet/README.md).
# tools/train.py configs/efficientdet/d5_coco.py
_base_ = ['_base_/model.py', '_base_/coco.py', '_base_/schedule_300e.py', '_base_/runtime.py']

image_size = (1280, 1280)
model = dict(
    backbone=dict(model_name='tf_efficientnet_b5', drop_path_rate=0.2),
    neck=dict(in_channels=[64, 176, 512], out_channels=288, num_cells=7),
    bbox_head=dict(in_channels=288, stacked_convs=4),
)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
