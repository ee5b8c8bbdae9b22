# EfficientDet's head after mmdet's NAS-FPN, which needs maps of even sizes: images are padded to
# multiples of 128.
_base_ = '_base_/efficientdet_head.py'

model = dict(
    data_preprocessor=dict(pad_size_divisor=128),
    neck=dict(
        type='NASFPN',
        in_channels=[64, 128, 256, 512],
        out_channels=256,
        start_level=1,
        num_outs=5,
        stack_times=3,
        norm_cfg=dict(type='BN', requires_grad=True),
    ),
)
