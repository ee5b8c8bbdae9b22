# FCOS with two BiFPN cells in place of its FPN.
_base_ = '_base_/fcos.py'

model = dict(
    neck=dict(
        type='BiFPN',
        in_channels=[64, 128, 256, 512],
        out_channels=256,
        start_level=1,
        num_outs=5,
        num_cells=2,
    ),
)
