"""EfficientDet as parts for MMDetection: importing the package registers them, and does nothing else."""

from effdet_plugin import compat  # noqa: F401  (first: makes mmdet importable)

__version__ = '0.1.0'
