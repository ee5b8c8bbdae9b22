"""Pictures in, detections and drawings out."""

from effdet_plugin.inference.detector import Detector
from effdet_plugin.inference.files import Inferred, infer_files
from effdet_plugin.inference.fusing import fuse_files, fuse_rows
from effdet_plugin.inference.images import find_images, read_image
from effdet_plugin.inference.tta import TTA, TTADetector, apply_tta

__all__ = [
    'TTA',
    'Detector',
    'Inferred',
    'TTADetector',
    'apply_tta',
    'find_images',
    'fuse_files',
    'fuse_rows',
    'infer_files',
    'read_image',
]
