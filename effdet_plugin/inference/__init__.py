"""Inference: images in, detections and drawings out."""

from effdet_plugin.inference.detector import Detector
from effdet_plugin.inference.files import InferenceResult, infer_files
from effdet_plugin.inference.fuse import fuse_files, fuse_results
from effdet_plugin.inference.images import find_images, read_image
from effdet_plugin.inference.tta import TTA, apply_tta

__all__ = [
    'TTA',
    'Detector',
    'InferenceResult',
    'apply_tta',
    'find_images',
    'fuse_files',
    'fuse_results',
    'infer_files',
    'read_image',
]
