"""Thin registry adapters over :mod:`effdet_plugin.ops`: anchors, box coder, assigner."""

from effdet_plugin.task_modules.anchor_generator import EfficientDetAnchorGenerator
from effdet_plugin.task_modules.assigner import BatchMaxIoUAssigner
from effdet_plugin.task_modules.box_coder import EfficientDetBoxCoder

__all__ = ['BatchMaxIoUAssigner', 'EfficientDetAnchorGenerator', 'EfficientDetBoxCoder']
