# RTMDet-tiny with two BiFPN cells in place of its CSPNeXtPAFPN, on the three levels of its head.
_base_ = '_base_/rtmdet_tiny.py'

model = dict(
    neck=dict(
        type='BiFPN',
        in_channels=[96, 192, 384],
        out_channels=96,
        num_outs=3,
        num_cells=2,
    ),
)
