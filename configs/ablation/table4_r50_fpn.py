# Table 4: ResNet-50 + FPN. The paper: AP 37.0, 34M parameters, 97B multiply-adds.
_base_ = '_base_/retinanet.py'

resnet50 = dict(type='Pretrained', checkpoint='torchvision://resnet50')
model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=50, out_indices=(1, 2, 3), init_cfg=resnet50),
    neck=dict(in_channels=[512, 1024, 2048]),
)
