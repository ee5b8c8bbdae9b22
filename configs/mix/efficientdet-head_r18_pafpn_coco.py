# EfficientDet's head after mmdet's PAFPN.
_base_ = '_base_/efficientdet_head.py'

model = dict(
    neck=dict(
        type='PAFPN',
        in_channels=[64, 128, 256, 512],
        out_channels=256,
        start_level=1,
        add_extra_convs='on_output',
        num_outs=5,
    ),
)
