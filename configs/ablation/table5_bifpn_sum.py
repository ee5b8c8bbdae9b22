# Table 5: BiFPN without weights. The paper: AP 43.94.
_base_ = '_base_/b3.py'

model = dict(neck=dict(topology='bifpn', fusion='sum'))
