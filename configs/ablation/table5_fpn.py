# Table 5: repeated top-down FPN. The paper: AP 42.29. Ten cells have as many nodes as five
# FPN+PANet cells.
_base_ = '_base_/b3.py'

model = dict(neck=dict(topology='fpn', num_cells=10, fusion='sum'))
