# EfficientDet-D7: 51,871,782 parameters and 322.73G multiply-adds of convolutions at 90 classes,
# 1536x1536. The reference's AP on COCO val2017: 53.4 (google/automl, efficientdet/README.md).
# tools/train.py configs/efficientdet/d7_coco.py
_base_ = ['_base_/model.py', '_base_/coco.py', '_base_/schedule_300e.py', '_base_/runtime.py']

image_size = (1536, 1536)
model = dict(
    backbone=dict(model_name='tf_efficientnet_b6', drop_path_rate=0.2),
    neck=dict(in_channels=[72, 200, 576], out_channels=384, num_cells=8, fusion='sum'),
    bbox_head=dict(in_channels=384, stacked_convs=5, anchor_generator=dict(octave_base_scale=5.0)),
)
train_dataloader = dict(dataset=dict(image_size=image_size))
val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))
train_cfg = dict(max_epochs=600)  # D7 and D7x trained twice as long
