# Table 6: fast normalized fusion. The paper's model 1: AP 33.85, 1.28 times as fast as softmax.
_base_ = '../efficientdet/d0_coco.py'

custom_hooks = [*_base_.custom_hooks, dict(type='FusionWeightsHook')]
