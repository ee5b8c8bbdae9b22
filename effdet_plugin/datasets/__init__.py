"""Registered datasets and transforms."""

from effdet_plugin.datasets.autoaugment import DetectionAutoAugment
from effdet_plugin.datasets.dataset import EfficientDetDataset
from effdet_plugin.datasets.grid_mask import GridMask
from effdet_plugin.datasets.mosaic import MosaicCrop
from effdet_plugin.datasets.tile_views import TileViews
from effdet_plugin.datasets.transforms import LetterBox, ScaleJitterCrop, ToRGB

__all__ = [
    'DetectionAutoAugment',
    'EfficientDetDataset',
    'GridMask',
    'LetterBox',
    'MosaicCrop',
    'ScaleJitterCrop',
    'TileViews',
    'ToRGB',
]
