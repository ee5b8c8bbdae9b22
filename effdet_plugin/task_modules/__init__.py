"""Anchors, box coder and assigner of :mod:`effdet_plugin.ops` in mmdet's registries."""

from effdet_plugin.task_modules.anchor_generator import EfficientDetAnchorGenerator
from effdet_plugin.task_modules.assigner import BatchMaxIoUAssigner
from effdet_plugin.task_modules.box_coder import EfficientDetBoxCoder

__all__ = ['BatchMaxIoUAssigner', 'EfficientDetAnchorGenerator', 'EfficientDetBoxCoder']
