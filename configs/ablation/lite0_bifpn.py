# Table 5 on a small scale, for own data: Lite0 with its three BiFPN cells.
_base_ = '../efficientdet/custom_coco.py'

model = dict(neck=dict(topology='bifpn', num_cells=3))
