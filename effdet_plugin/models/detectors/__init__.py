"""Detectors."""

from effdet_plugin.models.detectors.efficientdet import EfficientDet

__all__ = ['EfficientDet']
