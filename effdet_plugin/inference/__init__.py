"""Inference: images in, detections and drawings out."""

from effdet_plugin.inference.detector import Detector
from effdet_plugin.inference.fuse import fuse_files, fuse_results
from effdet_plugin.inference.image_files import InferenceResult, find_images, infer_files
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
]
