"""Pictures in, detections and drawings out."""

from effdet_plugin.inference.detector import Detector
from effdet_plugin.inference.files import Inferred, infer_files
from effdet_plugin.inference.images import find_images, read_image

__all__ = ['Detector', 'Inferred', 'find_images', 'infer_files', 'read_image']
