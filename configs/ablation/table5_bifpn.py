# Table 5: BiFPN with weights. The paper: AP 44.39.
_base_ = '_base_/b3.py'

model = dict(neck=dict(topology='bifpn', fusion='fast_attn'))
