# Beside table 5: QuFPN of google/automl, a BiFPN and its mirror over the same inputs, averaged.
_base_ = '_base_/b3.py'

model = dict(neck=dict(topology='qufpn'))
