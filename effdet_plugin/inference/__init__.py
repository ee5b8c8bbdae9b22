"""Inference: images in, detections and drawings out."""

from effdet_plugin.inference.detector import Detector
from effdet_plugin.inference.fuse import fuse_files, fuse_results
from effdet_plugin.inference.reading import Frames
from effdet_plugin.inference.results import InferenceResult, to_dicts
from effdet_plugin.inference.run import InferOptions, infer, infer_files
from effdet_plugin.inference.sources import find_images, find_sources
from effdet_plugin.inference.tiles import Tiles, apply_tiles, apply_views
from effdet_plugin.inference.tta import TTA, apply_tta

__all__ = [
    'TTA',
    'Detector',
    'Frames',
    'InferOptions',
    'InferenceResult',
    'Tiles',
    'apply_tiles',
    'apply_tta',
    'apply_views',
    'find_images',
    'find_sources',
    'fuse_files',
    'fuse_results',
    'infer',
    'infer_files',
    'to_dicts',
]
