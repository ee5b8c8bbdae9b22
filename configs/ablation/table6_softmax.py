# Table 6: softmax fusion. The paper's model 1: AP 33.96.
_base_ = './table6_fast.py'

model = dict(neck=dict(fusion='attn'))
