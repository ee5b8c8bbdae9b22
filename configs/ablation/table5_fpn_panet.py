# Table 5: repeated FPN+PANet. The paper: AP 44.08. All ratios of the table are to this and the FPN.
_base_ = '_base_/b3.py'

model = dict(neck=dict(topology='panet', fusion='sum'))
