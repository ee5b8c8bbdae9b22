"""IoU, GIoU, DIoU and CIoU losses of box pairs; every 0 / 0 is 0, so empty boxes give no NaN."""

import math

import torch
from torch import Tensor

from effdet_plugin.errors import ConfigError

MODES = ('iou', 'giou', 'diou', 'ciou')
ANGLE_GRADIENTS = ('paper', 'reference')


def _safe_divide(a: Tensor, b: Tensor) -> Tensor:
    """``a / b``, 0 where ``b`` is 0, in the gradient too."""
    zero = b == 0
    return torch.where(zero, 0.0, a / torch.where(zero, 1.0, b))


def _larger(a: Tensor, b: Tensor) -> Tensor:
    """Maximum whose gradient goes to the prediction ``a`` on ties (torch.maximum halves it)."""
    return torch.where(a >= b, a, b)


def _smaller(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(a <= b, a, b)


def _sides(low: Tensor, high: Tensor) -> Tensor:
    """Extent of corners ``(..., 2)``; 0, without gradient, where they are exchanged."""
    side = high - low
    return torch.where(side > 0, side, 0.0)


def _angle_term(pred: Tensor, target: Tensor) -> Tensor:
    """CIoU's ``v = 4 / pi^2 (atan(w_t / h_t) - atan(w_p / h_p))^2`` of sides ``(..., 2)``."""
    angles = [torch.atan(_safe_divide(side[..., 0], side[..., 1])) for side in (pred, target)]
    return 4 / math.pi**2 * (angles[0] - angles[1]) ** 2


def _penalty(
    pred: Tensor, target: Tensor, iou: Tensor, union: Tensor, mode: str, angle_gradient: str
) -> Tensor:
    """What a mode subtracts from the plain IoU, ``(...)``."""
    hull = _sides(_smaller(pred[..., :2], target[..., :2]), _larger(pred[..., 2:], target[..., 2:]))
    if mode == 'giou':
        enclosing = hull.prod(-1)
        return _safe_divide(enclosing - union, enclosing)
    offset = (pred[..., :2] + pred[..., 2:] - target[..., :2] - target[..., 2:]) / 2
    distance = _safe_divide((offset**2).sum(-1), (hull**2).sum(-1))
    if mode == 'diou':
        return distance
    angle = _angle_term(
        _sides(pred[..., :2], pred[..., 2:]), _sides(target[..., :2], target[..., 2:])
    )
    weight = _safe_divide(angle, (1 - iou) + angle)
    return distance + (weight.detach() if angle_gradient == 'paper' else weight) * angle


def iou_loss(
    pred: Tensor, target: Tensor, mode: str = 'iou', angle_gradient: str = 'paper'
) -> Tensor:
    """``1 - IoU`` (or its G, D, C form) of each pair; 0 for targets without width or height.

    Args:
        pred: ``(..., 4)`` xyxy.
        target: ``(..., 4)`` xyxy.
        mode: one of ``iou``, ``giou``, ``diou``, ``ciou``.
        angle_gradient: of ``ciou``. ``'paper'``: the angle term's weight ``alpha`` is held
            constant, as the paper asks. ``'reference'``: it is differentiated like the rest (the
            oracle's numbers).

    Returns:
        ``(...)``.

    Raises:
        ConfigError: unknown mode.

    Source: Rezatofighi et al., CVPR 2019 (GIoU); Zheng et al., AAAI 2020 (DIoU, CIoU); the
    reference's ``iou_utils`` for ties, empty boxes and 0 / 0.
    """
    if mode not in MODES:
        raise ConfigError(f'mode={mode!r} is not an IoU loss; choose one of {", ".join(MODES)}')
    shared = _sides(
        _larger(pred[..., :2], target[..., :2]), _smaller(pred[..., 2:], target[..., 2:])
    )
    areas = [_sides(box[..., :2], box[..., 2:]).prod(-1) for box in (pred, target)]
    inter = shared.prod(-1)
    union = areas[0] + areas[1] - inter
    iou = _safe_divide(inter, union)
    score = iou if mode == 'iou' else iou - _penalty(pred, target, iou, union, mode, angle_gradient)
    has_extent = (target[..., 2:] > target[..., :2]).all(-1)
    return torch.where(has_extent, 1 - score, 0.0)
