# Table 5 in small, for own data: Lite0 with six top-down FPN cells, the nodes of three FPN+PANet.
_base_ = '../efficientdet/custom_coco.py'

model = dict(neck=dict(topology='fpn', num_cells=6))
