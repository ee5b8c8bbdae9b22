"""Detectors."""

from effdet_plugin.models.detectors.efficientdet import EfficientDet
from effdet_plugin.models.detectors.merged_views import MergedViews

__all__ = ['EfficientDet', 'MergedViews']
