"""TensorFlow Lite (LiteRT): converted by litert-torch, run by ai-edge-litert; MediaPipe's file.

The network's form makes the conversion exact (see `effdet_plugin.ops.resample`): what is left to do
here is the layout, the resize that the converter gets wrong, the detection operator and the
metadata that runtimes on devices read.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModel
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn

from effdet_plugin.errors import ConfigError
from effdet_plugin.export import tflite_graph, tflite_metadata
from effdet_plugin.export.extras import need, quiet
from effdet_plugin.export.metadata import KEY, Metadata
from effdet_plugin.export.program import EndToEnd
from effdet_plugin.export.runtime import Array
from effdet_plugin.export.tflite_graph import DetectionOptions
from effdet_plugin.export.tflite_quant import Images, quantized
from effdet_plugin.export.tflite_runtime import TfliteRuntime, load
from effdet_plugin.files import write_atomically
from effdet_plugin.task_modules.box_coder import EfficientDetBoxCoder

__all__ = ['TfliteRuntime', 'build', 'load', 'save', 'set_min_score']
EXTRA = 'tflite'
# What the operator does, in the words of `DetectionPostProcessor`: every anchor with its best
# class, hard NMS whatever the class, no clipping.
NMS = {
    'nms_pre': 0,
    'candidates_per_level': None,
    'method': 'hard',
    'class_wise': False,
    'clip': 'none',
}
SCORE_THR = 0.01  # without one of the config's: the operator sorts all that are above


@dataclass
class Built:
    """A converted network.

    Attributes:
        model: ``ModelT`` of the schema.
        anchors: ``(N, 4)`` float32 (y, x, h, w), centre and size as shares of the image.
        options: Of the detection operator; None without it.
    """

    model: Any
    anchors: Array
    options: DetectionOptions | None


def build(model: BaseModel, metadata: Metadata, images: Images | None = None) -> Built:
    """Convert a network.

    Args:
        model: A folded detector with an `EfficientDetHead`, on the CPU.
        metadata: Of the file.
        images: To calibrate a file of precision ``'int8'`` with.

    Raises:
        ConfigError: The detector has another box coder than the operator.
    """
    if type(model.bbox_head.bbox_coder) is not EfficientDetBoxCoder:
        kind = type(model.bbox_head.bbox_coder).__name__
        raise ConfigError(
            f'bbox_head.bbox_coder: {kind} cannot be exported to .tflite; EfficientDetBoxCoder can'
        )
    assert metadata.image_size is not None
    anchors = _centred(EndToEnd(model, metadata.image_size, 'raw').anchors, metadata.image_size)
    graph = tflite_graph.unpacked(converted(_Network(model, metadata), metadata.image_size))
    tflite_graph.use_left_pixels(graph)
    return finish(graph, anchors, metadata, images)


def finish(graph: Any, anchors: Array, metadata: Metadata, images: Images | None = None) -> Built:
    """Give a converted graph its precision and its last step.

    Args:
        graph: ``ModelT``, float, with box codes and scores as its outputs; changed.
        anchors: See `Built`.
        metadata: Of the file.
        images: See `build`.
    """
    if metadata.precision != 'fp32':
        content = quantized(tflite_graph.packed(graph), metadata, images)
        graph = tflite_graph.unpacked(content)
        tflite_graph.take_uint8(graph)
    options = None
    if metadata.end == 'postprocess':
        options = DetectionOptions(
            num_classes=len(metadata.classes),
            max_detections=min(int(metadata.nms.get('max_per_img', 100)), len(anchors)),
            iou_thr=float(metadata.nms.get('iou_thr', 0.5)),
            score_thr=_score_thr(metadata),
        )
        tflite_graph.append_detection(graph, anchors, options)
    else:
        tflite_graph.name_outputs(graph, ('raw_boxes', 'raw_scores'))
    tflite_graph.shorten_names(graph)
    return Built(graph, anchors, options)


def converted(module: nn.Module, image_size: tuple[int, int]) -> bytes:
    """Convert a module that takes images ``(1, H, W, 3)`` float32.

    Args:
        module: In evaluation mode.
        image_size: (height, width).
    """
    example = (torch.zeros((1, *image_size, 3)),)
    with quiet(), TemporaryDirectory() as folder:
        file = Path(folder) / 'converted.tflite'
        need('litert_torch', EXTRA).convert(module.eval(), example).export(str(file))
        return file.read_bytes()


def set_min_score(built: Built, value: float) -> None:
    """Set the least score of candidates, while a file is checked.

    Args:
        built: From `build`.
        value: See `effdet_plugin.export.program`; the options' own stays in force.
    """
    assert built.options is not None
    tflite_graph.set_score_thr(built.model, max(value, built.options.score_thr), built.options)


def save(built: Built, metadata: Metadata, path: Path) -> None:
    """Write a file with its labels and metadata.

    Args:
        built: From `build`.
        metadata: Goes into the file, as JSON and as MediaPipe reads it.
        path: ``.tflite``.
    """
    anchors = built.anchors if metadata.end == 'raw' else None
    threshold = metadata.nms.get('score_thr')
    known = tflite_metadata.model_metadata(metadata, threshold, anchors)
    tflite_graph.set_metadata(built.model, tflite_metadata.NAME, known)
    tflite_graph.set_metadata(built.model, KEY, metadata.to_json().encode())
    content = tflite_graph.packed(built.model)
    path.write_bytes(tflite_metadata.with_labels(content, metadata.classes))


def remarks(built: Built, metadata: Metadata, path: Path) -> list[str]:
    """Write the labels beside a file; return lines about it.

    Args:
        built: From `build`.
        metadata: Of the file.
        path: ``.tflite``.
    """
    lines = [f'labels: {write_labels(path, metadata.classes)}']
    if metadata.precision == 'int8':
        left = tflite_graph.float_operators(built.model)
        kinds = ', '.join(f'{number} {name}' for name, number in left.items())
        lines.append(f'operators left in float: {kinds or "none"}')
    if metadata.resize_mode == 'letterbox':
        assert metadata.image_size is not None
        height, width = metadata.image_size
        lines.append(
            f'MediaPipe Tasks will stretch images to {width}x{height}, and this network was '
            'trained letter-boxed: pad images yourself, or train with --resize stretch_mediapipe'
        )
    return lines


def write_labels(path: Path, classes: Sequence[str]) -> Path:
    """Write ``labels.txt`` beside a file, for programs that do not look into it.

    Args:
        path: ``.tflite``.
        classes: Their names.

    Returns:
        The text's path; it has the file's name where a ``labels.txt`` of other classes is there.
    """
    text = tflite_metadata.labels_text(classes)
    plain = path.with_name(tflite_metadata.LABELS)
    taken = plain.exists() and not (plain.is_file() and plain.read_bytes() == text.encode())
    place = path.with_name(f'{path.stem}_{tflite_metadata.LABELS}') if taken else plain
    write_atomically(place, text)
    return place


class _Network(nn.Module):
    """A detector as devices take it: RGB images last, box codes in the operator's order.

    Args:
        model: A folded detector; a copy of it is changed.
        metadata: Of the file.
    """

    def __init__(self, model: BaseModel, metadata: Metadata) -> None:
        super().__init__()
        model = copy.deepcopy(model)
        self.backbone, self.neck, self.head = model.backbone, model.neck, model.bbox_head
        self.is_normalised = tflite_metadata.normalisation(metadata) is not None
        scale = torch.tensor(metadata.std).reciprocal()
        self.register_buffer('scale', scale)
        self.register_buffer('shift', -torch.tensor(metadata.mean) * scale)
        _use_two_means(self.backbone)
        _use_operator_order(self.head.box_tower.predict, self.head.num_anchors)

    scale: Tensor
    shift: Tensor

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """``(1, H, W, 3)`` -> box codes ``(1, N, 4)`` (ty, tx, th, tw), scores ``(1, N, C)``."""
        if not self.is_normalised:
            images = images * self.scale + self.shift
        maps = self.neck(self.backbone(images.permute(0, 3, 1, 2)))
        classes, boxes = self.head(maps)
        flatten, number = self.head.flatten, self.head.num_classes
        return flatten(boxes, 4), flatten(classes, number).sigmoid()


def _use_operator_order(predict: Any, num_anchors: int) -> None:
    """Exchange the channels of the last convolution: (tx, ty, tw, th) -> (ty, tx, th, tw)."""
    conv = getattr(predict, 'pointwise', predict)
    order = torch.arange(num_anchors * 4).reshape(-1, 4)[:, [1, 0, 3, 2]].flatten()
    conv.weight = nn.Parameter(conv.weight[order], requires_grad=False)
    if conv.bias is not None:
        conv.bias = nn.Parameter(conv.bias[order], requires_grad=False)


class _TwoMeans(nn.Module):
    """A squeeze-excite whose mean over a map is one over columns, then one over rows.

    LiteRT adds all values of a mean in sequence, which loses three digits over a map of 256x256.

    Args:
        module: timm's.
    """

    def __init__(self, module: SqueezeExcite) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> likewise."""
        part = self.module
        mean = x.mean(3, keepdim=True).mean(2, keepdim=True)
        return x * part.gate(part.conv_expand(part.act1(part.conv_reduce(mean))))


def _use_two_means(backbone: nn.Module) -> None:
    for name, module in list(backbone.named_modules()):
        if isinstance(module, SqueezeExcite):
            parent, _, last = name.rpartition('.')
            setattr(backbone.get_submodule(parent), last, _TwoMeans(module))


def _centred(anchors: Tensor, size: tuple[int, int]) -> Array:
    """``(N, 4)`` xyxy in pixels -> (y, x, h, w), centre and size as shares of the image."""
    x1, y1, x2, y2 = anchors.double().numpy().T
    height, width = size
    columns = ((y1 + y2) / 2 / height, (x1 + x2) / 2 / width, (y2 - y1) / height, (x2 - x1) / width)
    return np.stack(columns, axis=1).astype(np.float32)


def _score_thr(metadata: Metadata) -> float:
    return float(metadata.nms.get('score_thr') or 0.0)
