# Table 5: repeated FPN+PANet. The paper: AP 44.08. All ratios of the table are relative
# to this.
_base_ = '_base_/b3.py'

model = dict(neck=dict(topology='panet', fusion='sum'))
