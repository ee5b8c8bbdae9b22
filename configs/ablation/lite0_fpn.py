# Table 5 on a small scale, for own data: Lite0 with six top-down FPN cells, which
# have as many nodes as three FPN+PANet cells.
_base_ = '../efficientdet/custom_coco.py'

model = dict(neck=dict(topology='fpn', num_cells=6))
