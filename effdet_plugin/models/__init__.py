"""Network parts, each registered in mmdet's ``MODELS``."""

from effdet_plugin.models.backbones import TimmBackbone
from effdet_plugin.models.data_preprocessor import EfficientDetDataPreprocessor
from effdet_plugin.models.dense_heads import EfficientDetHead
from effdet_plugin.models.detectors import EfficientDet
from effdet_plugin.models.losses import BoxIoULoss, HuberLoss, SigmoidFocalLoss
from effdet_plugin.models.necks import BiFPN
from effdet_plugin.models.postprocessor import DetectionPostProcessor

__all__ = [
    'BiFPN',
    'BoxIoULoss',
    'DetectionPostProcessor',
    'EfficientDet',
    'EfficientDetDataPreprocessor',
    'EfficientDetHead',
    'HuberLoss',
    'SigmoidFocalLoss',
    'TimmBackbone',
]
