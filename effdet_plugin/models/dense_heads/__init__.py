"""Dense heads."""

from effdet_plugin.models.dense_heads.efficientdet_head import EfficientDetHead

__all__ = ['EfficientDetHead']
