"""Layers that backbone, neck and head are built from."""

from effdet_plugin.models.layers.activation_checkpoint import checkpoint_activations
from effdet_plugin.models.layers.conv import (
    BatchNorm2d,
    SeparableConv2d,
    build_activation,
    build_conv,
)
from effdet_plugin.models.layers.fusion import Fusion, build_fusion
from effdet_plugin.models.layers.resample import Resample

__all__ = [
    'BatchNorm2d',
    'Fusion',
    'Resample',
    'SeparableConv2d',
    'build_activation',
    'build_conv',
    'build_fusion',
    'checkpoint_activations',
]
