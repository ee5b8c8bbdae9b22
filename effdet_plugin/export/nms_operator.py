"""Hard NMS as ONNX's operator NonMaxSuppression: faster than a loop, the same detections.

The operator takes the scores of each class apart and returns the rows that it keeps, as many as
there are. Ours are candidates of one class each: the others have no score there. A class keeps at
most as many as an image may have; the best of all classes are then taken. In place of scores it
gets ranks, of which no two are equal, so that the first wins ties, as in the loop.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from effdet_plugin.ops.boxes import gather_rows
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
    is_sorted: bool = False,
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
        is_sorted: The scores descend.
    """
    least = max(score_thr, NO_SCORE)
    number = scores.shape[1]
    boxes, scores = boxes.float(), scores.float()
    order = torch.arange(number, device=scores.device).expand_as(labels)
    if not is_sorted:
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        boxes, labels = gather_rows(boxes, order), labels.gather(1, order)
    # The operator sees ranks: runtimes differ in which of equal scores they take first.
    ranks = torch.arange(number, 0, -1, device=scores.device, dtype=torch.float32)
    ranks = torch.where(scores > least, ranks, NO_SCORE)
    apart = ranks[:, None]
    if class_wise:
        classes = torch.arange(num_classes, device=labels.device)
        apart = torch.where(labels[:, None] == classes[:, None], apart, NO_SCORE)  # (B, C, K)
    rows = hard_nms(boxes, apart, max_per_img, iou_thr, 0.0)
    is_kept = torch.zeros_like(scores).index_put(
        (rows[:, 0], rows[:, 2]), torch.ones_like(rows[:, 0], dtype=scores.dtype)
    )
    left = torch.where(is_kept > 0, ranks, NO_SCORE)
    # Columns of padding: there may be fewer candidates than rows to return.
    best, place = F.pad(left, (0, max_per_img), value=NO_SCORE).topk(max_per_img, dim=1)
    is_real = best > NO_SCORE
    place = torch.where(is_real, place, 0)
    keep, kept = order.gather(1, place), scores.gather(1, place)
    return torch.where(is_real, keep, 0), torch.where(is_real, kept, NO_SCORE)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return what PyTorch's ONNX exporter needs to write the operator, and stable sorting."""
    op = import_module('onnxscript').opset18

    def write(boxes: Any, scores: Any, max_per_class: int, iou_thr: float, score_thr: float) -> Any:
        return op.NonMaxSuppression(
            boxes,
            scores,
            op.Constant(value_ints=[max_per_class]),
            op.Constant(value_floats=[iou_thr]),
            op.Constant(value_floats=[score_thr]),
        )

    def write_sort(x: Any, stable: bool = False, dim: int = -1, descending: bool = False) -> Any:
        # ONNX's TopK is stable: of equal values the lower index comes first.
        length = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
        return op.TopK(x, length, axis=dim, largest=int(descending), sorted=1)

    return {
        torch.ops.effdet_plugin.hard_nms.default: write,
        torch.ops.aten.sort.stable: write_sort,
    }
