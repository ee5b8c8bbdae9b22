"""Small modules that backbone, neck and head are put together from."""

from effdet_plugin.models.layers.activation import build_activation
from effdet_plugin.models.layers.batch_norm import BatchNorm2d
from effdet_plugin.models.layers.fusion import Fusion, build_fusion
from effdet_plugin.models.layers.resample import Resample
from effdet_plugin.models.layers.separable_conv import SeparableConv2d, build_conv

__all__ = [
    'BatchNorm2d',
    'Fusion',
    'Resample',
    'SeparableConv2d',
    'build_activation',
    'build_conv',
    'build_fusion',
]
