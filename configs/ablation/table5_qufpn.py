# Not in table 5: QuFPN of google/automl efficientdet/tf2/fpn_configs.py, a BiFPN and its mirror
# over the same inputs, fused.
_base_ = '_base_/b3.py'

model = dict(neck=dict(topology='qufpn'))
