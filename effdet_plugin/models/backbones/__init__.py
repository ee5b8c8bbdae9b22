"""Backbones."""

from effdet_plugin.models.backbones.timm_backbone import TimmBackbone

__all__ = ['TimmBackbone']
