"""Hard NMS as ONNX's operator NonMaxSuppression: faster than a loop, the same detections.

The operator takes the scores of each class apart and returns the rows that it keeps, as many as
there are. Ours are candidates of one class each: the others have no score there. A class keeps at
most as many as an image may have; the best of all classes are then taken by score, the first on
ties, as the loop does.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from effdet_plugin.ops.nms import suppress
from effdet_plugin.ops.nms_cpu import NO_SCORE

NAMESPACE = 'effdet_plugin'


@torch.library.custom_op(f'{NAMESPACE}::hard_nms', mutates_args=())
def hard_nms(
    boxes: Tensor, scores: Tensor, max_per_class: int, iou_thr: float, score_thr: float
) -> Tensor:
    """Suppress boxes class by class, in each image.

    Args:
        boxes: ``(B, K, 4)`` xyxy.
        scores: ``(B, C, K)`` float32; at most ``score_thr`` where a box is not of the class.
        max_per_class: Rows that a class may keep in an image.
        iou_thr: Boxes of a higher IoU with a kept one are dropped.
        score_thr: Scores must be above it.

    Returns:
        ``(n, 3)`` int64: image, class and box of what is kept.
    """
    batch, classes, number = scores.shape
    each = boxes[:, None].expand(-1, classes, -1, -1).reshape(-1, number, 4)
    flat = scores.reshape(-1, number)
    keep, kept = suppress(
        each, flat, torch.zeros_like(flat, dtype=torch.long), 'hard', iou_thr,
        score_thr=score_thr, max_per_img=max_per_class,
    )  # fmt: skip
    group, column = (kept > NO_SCORE).nonzero(as_tuple=True)
    rows = (group // classes, group % classes, keep[group, column])
    return torch.stack(rows, dim=1) if batch else keep.new_zeros((0, 3))


@hard_nms.register_fake
def _(
    boxes: Tensor, scores: Tensor, max_per_class: int, iou_thr: float, score_thr: float
) -> Tensor:
    number = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty((number, 3), dtype=torch.long)


def suppress_by_operator(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    num_classes: int,
    iou_thr: float,
    score_thr: float,
    max_per_img: int,
    class_wise: bool,
) -> tuple[Tensor, Tensor]:
    """:func:`effdet_plugin.ops.nms.suppress` of hard NMS, with the operator in place of its loop.

    Args:
        boxes: ``(B, K, 4)`` xyxy.
        scores: ``(B, K)``; -1 or lower is padding.
        labels: ``(B, K)`` int64 in ``0 .. num_classes - 1``.
        num_classes: Number of classes.
        iou_thr: See ``suppress``, as the others.
        score_thr: Likewise.
        max_per_img: Likewise.
        class_wise: Likewise.
    """
    least = max(score_thr, NO_SCORE)
    scores = torch.where(scores > least, scores.float(), NO_SCORE)
    apart = scores[:, None]
    if class_wise:
        classes = torch.arange(num_classes, device=labels.device)
        apart = torch.where(labels[:, None] == classes[:, None], apart, NO_SCORE)  # (B, C, K)
    rows = hard_nms(boxes.float(), apart, max_per_img, iou_thr, least)
    is_kept = torch.zeros_like(scores).index_put(
        (rows[:, 0], rows[:, 2]), torch.ones_like(rows[:, 0], dtype=scores.dtype)
    )
    left = torch.where(is_kept > 0, scores, NO_SCORE)
    # Columns of padding: there may be fewer candidates than rows to return.
    kept, keep = F.pad(left, (0, max_per_img), value=NO_SCORE).topk(max_per_img, dim=1)
    return torch.where(kept > NO_SCORE, keep, 0), kept


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return what PyTorch's ONNX exporter needs to write the operator."""
    op = import_module('onnxscript').opset18

    def write(boxes: Any, scores: Any, max_per_class: int, iou_thr: float, score_thr: float) -> Any:
        return op.NonMaxSuppression(
            boxes,
            scores,
            op.Constant(value_ints=[max_per_class]),
            op.Constant(value_floats=[iou_thr]),
            op.Constant(value_floats=[score_thr]),
        )

    return {torch.ops.effdet_plugin.hard_nms.default: write}
