# EfficientDet-D2: 8,097,039 parameters and 10.83G multiply-adds of convolutions at 90 classes,
# 768x768. The reference's AP on COCO val2017: 43.5 (google/automl, efficientdet/README.md).
# tools/train.py configs/efficientdet/d2_coco.py
_base_ = ['_base_/model.py', '_base_/coco.py', '_base_/schedule_300e.py', '_base_/runtime.py']

image_size = (768, 768)
model = dict(
    backbone=dict(model_name='tf_efficientnet_b2', drop_path_rate=0.2),
    neck=dict(in_channels=[48, 120, 352], out_channels=112, num_cells=5),
    bbox_head=dict(in_channels=112, stacked_convs=3),
)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
