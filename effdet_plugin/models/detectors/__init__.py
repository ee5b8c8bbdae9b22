"""Detectors."""

from effdet_plugin.models.detectors.efficientdet import EfficientDet
from effdet_plugin.models.detectors.tiled_model import TiledDetector
from effdet_plugin.models.detectors.tta_model import EfficientDetTTAModel

__all__ = ['EfficientDet', 'EfficientDetTTAModel', 'TiledDetector']
