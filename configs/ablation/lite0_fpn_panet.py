# Table 5 on a small scale, for own data: Lite0 with three FPN+PANet cells.
_base_ = '../efficientdet/custom_coco.py'

model = dict(neck=dict(topology='panet', num_cells=3))
