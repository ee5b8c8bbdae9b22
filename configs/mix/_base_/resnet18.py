# What all detectors here share: ImageNet's mean and std, and four maps of a ResNet-18 (strides 4,
# 8, 16 and 32).
_base_ = ['./coco_1x.py', '../../efficientdet/_base_/runtime.py']

model = dict(
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='ResNet',
        depth=18,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'),
    ),
)
env_cfg = dict(cudnn_benchmark=False)  # images have many shapes, and it would search for each
