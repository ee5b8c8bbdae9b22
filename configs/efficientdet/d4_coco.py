# EfficientDet-D4: 20,723,675 parameters and 54.58G multiply-adds of convolutions at 90 classes,
# 1024x1024. The reference's AP on COCO val2017: 49.3 (google/automl, efficientdet/README.md).
# tools/train.py configs/efficientdet/d4_coco.py
_base_ = ['_base_/model.py', '_base_/coco.py', '_base_/schedule_300e.py', '_base_/runtime.py']

image_size = (1024, 1024)
model = dict(
    backbone=dict(model_name='tf_efficientnet_b4', drop_path_rate=0.2),
    neck=dict(in_channels=[56, 160, 448], out_channels=224, num_cells=7),
    bbox_head=dict(in_channels=224, stacked_convs=4),
)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
