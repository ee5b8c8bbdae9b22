"""A tiny detector of mmdet's own parts, so that these tests need none of ours."""

from typing import Any

import pytest
from mmengine.config import Config


@pytest.fixture
def tiny_config() -> Config:
    """A RetinaNet of two classes that sees 64 x 96 pixels."""
    pipeline: list[dict[str, Any]] = [
        {'type': 'LoadImageFromFile'},
        {'type': 'Resize', 'scale': (96, 64), 'keep_ratio': True},
        {'type': 'LoadAnnotations', 'with_bbox': True},
        {
            'type': 'PackDetInputs',
            'meta_keys': ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
        },
    ]
    model = {
        'type': 'RetinaNet',
        'data_preprocessor': {
            'type': 'DetDataPreprocessor',
            'bgr_to_rgb': True,
            'pad_size_divisor': 32,
            'mean': [0, 0, 0],
            'std': [255, 255, 255],
        },
        'backbone': {
            'type': 'ResNet',
            'depth': 18,
            'base_channels': 8,
            'init_cfg': {'type': 'Pretrained', 'checkpoint': 'no/such/file'},
        },
        'neck': {
            'type': 'FPN',
            'in_channels': [8, 16, 32, 64],
            'out_channels': 8,
            'start_level': 1,
            'num_outs': 3,
        },
        'bbox_head': {
            'type': 'RetinaHead',
            'num_classes': 2,
            'in_channels': 8,
            'feat_channels': 8,
            'stacked_convs': 1,
            'anchor_generator': {
                'type': 'AnchorGenerator',
                'octave_base_scale': 4,
                'scales_per_octave': 1,
                'ratios': [1.0],
                'strides': [8, 16, 32],
            },
            'bbox_coder': {'type': 'DeltaXYWHBBoxCoder'},
        },
        'test_cfg': {
            'nms_pre': 50,
            'min_bbox_size': 0,
            'score_thr': 0.0,
            'nms': {'type': 'nms', 'iou_threshold': 0.5},
            'max_per_img': 5,
        },
    }
    dataset = {'type': 'CocoDataset', 'metainfo': {'classes': ('cat', 'dog')}, 'pipeline': pipeline}
    wrapped = {'type': 'RepeatDataset', 'times': 1, 'dataset': dataset}
    return Config({'model': model, 'test_dataloader': {'dataset': wrapped}})
