# EfficientDet-D3: 12,032,296 parameters and 24.57G multiply-adds of convolutions at 90 classes,
# 896x896. The reference's AP on COCO val2017: 46.8 (google/automl, efficientdet/README.md).
# tools/train.py configs/efficientdet/d3_coco.py
_base_ = ['_base_/model.py', '_base_/coco.py', '_base_/schedule_300e.py', '_base_/runtime.py']

image_size = (896, 896)
model = dict(
    backbone=dict(model_name='tf_efficientnet_b3', drop_path_rate=0.2),
    neck=dict(in_channels=[48, 136, 384], out_channels=160, num_cells=6),
    bbox_head=dict(in_channels=160, stacked_convs=4),
)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
