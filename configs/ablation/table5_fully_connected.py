# Table 5: repeated fully-connected FPN. The paper: AP 43.06. Ten cells of five nodes, as for FPN.
_base_ = '_base_/b3.py'

model = dict(neck=dict(topology='fully_connected', num_cells=10, fusion='sum'))
