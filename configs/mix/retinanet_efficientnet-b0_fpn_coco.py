# RetinaNet with EfficientDet's backbone below mmdet's FPN.
_base_ = '_base_/retinanet.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmBackbone',
        model_name='tf_efficientnet_b0',
        out_indices=(2, 3, 4),
        pretrained=True,
        norm_momentum=0.01,
    ),
    neck=dict(in_channels=[40, 112, 320], start_level=0),
)
