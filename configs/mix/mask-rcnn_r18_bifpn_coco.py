# Mask R-CNN with two BiFPN cells in place of its FPN: P2..P5, and P6 pooled from P5.
_base_ = '_base_/mask_rcnn.py'

model = dict(
    neck=dict(
        type='BiFPN',
        in_channels=[64, 128, 256, 512],
        out_channels=256,
        num_outs=5,
        num_cells=2,
    ),
)
