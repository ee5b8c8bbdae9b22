"""Write a checkpoint for ONNX Runtime, OpenVINO, PyTorch's pt2 or TensorRT, and run such files."""

from effdet_plugin.export.metadata import Metadata
from effdet_plugin.export.runtime import Outputs, Runtime, is_runtime_file, load_runtime

__all__ = ['Metadata', 'Outputs', 'Runtime', 'is_runtime_file', 'load_runtime']
