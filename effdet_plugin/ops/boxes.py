"""Boxes ``(x1, y1, x2, y2)`` in pixels: areas, IoU, and box coding relative to anchors.

Source: google/automl efficientdet/object_detection/faster_rcnn_box_coder.py for the box coding and
region_similarity_calculator.py beside it for the IoU (the reference).
"""

import torch
from torch import Tensor

# Sides are clamped to this before a logarithm or a division: ``EPSILON`` of the reference.
MIN_SIDE = 1e-8


def box_area(boxes: Tensor) -> Tensor:
    """Area of boxes ``(..., 4)`` in square pixels, without the ``+ 1`` of integer pixel boxes."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x2 - x1) * (y2 - y1)


def pairwise_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU of every box with every other; 0 where the intersection is empty.

    Args:
        boxes1: ``(..., N, 4)`` xyxy.
        boxes2: ``(..., M, 4)`` xyxy; leading dimensions broadcast.

    Returns:
        ``(..., N, M)`` in [0, 1]; never NaN, also for boxes without area or of infinite size.
    """
    a, b = boxes1.unsqueeze(-2), boxes2.unsqueeze(-3)
    # In place, since there are many pairs: at most three tensors (..., N, M) exist at a time.
    width = torch.minimum(a[..., 2], b[..., 2]).sub_(torch.maximum(a[..., 0], b[..., 0]))
    inter = torch.minimum(a[..., 3], b[..., 3]).sub_(torch.maximum(a[..., 1], b[..., 1]))
    inter.clamp_(min=0).mul_(width.clamp_(min=0))
    del width
    iou = inter / (box_area(a) + box_area(b)).sub_(inter)
    # Two boxes without area give 0 / 0, which is 0 in the reference.
    return iou.masked_fill_(iou.isnan(), 0.0)


def one_to_many_iou(
    start: Tensor,
    end: Tensor,
    area: Tensor,
    top_left: Tensor,
    bottom_right: Tensor,
    areas: Tensor,
) -> Tensor:
    """IoU of one box per image with all boxes of that image.

    This is the inner step of NMS, which runs a hundred times per image: areas are computed once by
    the caller, and x and y are handled together, to launch as few kernels as possible.

    Args:
        start: ``(B, 2, 1)`` x1 and y1 of the one box.
        end: ``(B, 2, 1)`` its x2 and y2.
        area: ``(B, 1)`` its area.
        top_left: ``(B, 2, K)`` x1 and y1 of all boxes, contiguous by coordinate.
        bottom_right: ``(B, 2, K)`` their x2 and y2.
        areas: ``(B, K)`` their areas.

    Returns:
        ``(B, K)``; 0 where the intersection is empty.
    """
    inner = torch.maximum(top_left, start)
    side = torch.minimum(bottom_right, end).sub_(inner).clamp_(min=0)  # (B, 2, K)
    inter = side[:, 0] * side[:, 1]
    return torch.where(inter > 0, inter / (areas + area).sub_(inter), 0.0)


def gather_rows(values: Tensor, index: Tensor) -> Tensor:
    """Select rows of each image.

    Args:
        values: ``(B, G)`` or ``(B, G, C)``.
        index: ``(B, N)`` int64 in ``0 .. G-1``.

    Returns:
        ``(B, N)`` or ``(B, N, C)``; zeros if ``G`` is 0.
    """
    # Without a box there is nothing to gather, not even for rows that are masked afterwards.
    if values.shape[1] == 0:
        return values.new_zeros((*index.shape, *values.shape[2:]))
    if values.dim() == 2:
        return values.gather(1, index)
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def center_size(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split xyxy boxes ``(..., 4)`` into centre x, centre y, width, height, each ``(...)``."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    return x1 + 0.5 * width, y1 + 0.5 * height, width, height


def encode_deltas(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Encode boxes relative to anchors: ``tx = (x - xa) / wa, tw = log(w / wa)``, likewise y.

    Args:
        anchors: ``(..., 4)`` xyxy.
        boxes: ``(..., 4)`` xyxy, one per anchor.

    Returns:
        ``(..., 4)`` deltas (tx, ty, tw, th), without scale factors.
    """
    xa, ya, wa, ha = center_size(anchors)
    x, y, w, h = center_size(boxes)
    # Keeps boxes without area finite: log(1e-8) in place of log(0).
    wa, ha, w, h = (side.clamp(min=MIN_SIDE) for side in (wa, ha, w, h))
    return torch.stack([(x - xa) / wa, (y - ya) / ha, torch.log(w / wa), torch.log(h / ha)], dim=-1)


def decode_deltas(anchors: Tensor, deltas: Tensor) -> Tensor:
    """Inverse of :func:`encode_deltas`.

    Args:
        anchors: ``(..., 4)`` xyxy.
        deltas: ``(..., 4)`` (tx, ty, tw, th).

    Returns:
        ``(..., 4)`` xyxy, not clipped.
    """
    xa, ya, wa, ha = center_size(anchors)
    tx, ty, tw, th = deltas.unbind(-1)
    # mmdet's coder clamps tw and th before exp; the reference does not.
    w, h = torch.exp(tw) * wa, torch.exp(th) * ha
    x, y = tx * wa + xa, ty * ha + ya
    return torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], dim=-1)


def clip_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Clip xyxy boxes ``(..., 4)`` to an ``image_size = (height, width)``."""
    height, width = image_size
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack(
        [x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], dim=-1
    )
