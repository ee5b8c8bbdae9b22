"""Box losses: Huber on deltas; IoU, GIoU, DIoU and CIoU on decoded boxes.

Source: Rezatofighi et al., CVPR 2019 (GIoU); Zheng et al., AAAI 2020 (DIoU, CIoU); google/automl,
efficientdet/iou_utils.py (the reference) for ties, empty boxes and 0 / 0, and
efficientdet/tf2/train_lib.py for the Huber loss.
"""

import math

import torch
from torch import Tensor

from effdet_plugin.errors import ConfigError

IOU_MODES = ('iou', 'giou', 'diou', 'ciou')
ANGLE_GRADIENTS = ('paper', 'reference')


def huber_loss(pred: Tensor, target: Tensor, delta: float = 0.1) -> Tensor:
    """``0.5 e^2`` where ``|e| <= delta``, else ``delta |e| - 0.5 delta^2``; any shape, elementwise.

    It is not divided by delta: an error of 0.4 at delta 0.1 costs 0.035. ``SmoothL1`` with
    ``beta = delta`` is this divided by delta.
    """
    return torch.nn.functional.huber_loss(pred, target, reduction='none', delta=delta)


def check_iou_mode(mode: str, angle_gradient: str) -> None:
    """Check the arguments of :func:`iou_loss`.

    Raises:
        ConfigError: unknown mode or angle gradient.
    """
    if mode not in IOU_MODES:
        raise ConfigError(f'mode={mode!r} is not an IoU loss; choose one of {", ".join(IOU_MODES)}')
    if angle_gradient not in ANGLE_GRADIENTS:
        raise ConfigError(
            f'angle_gradient={angle_gradient!r}; choose one of {", ".join(ANGLE_GRADIENTS)}'
        )


def iou_loss(
    pred: Tensor, target: Tensor, mode: str = 'iou', angle_gradient: str = 'paper'
) -> Tensor:
    """``1 - IoU`` (or GIoU, DIoU, CIoU) of each pair; 0 for targets without width or height.

    Args:
        pred: ``(..., 4)`` xyxy.
        target: ``(..., 4)`` xyxy.
        mode: one of ``iou``, ``giou``, ``diou``, ``ciou``.
        angle_gradient: for ``ciou`` only. ``'paper'``: the weight ``alpha`` of the aspect-ratio
            term ``v`` is a constant in backward, as in the paper. ``'reference'``: ``alpha`` is
            differentiated, too.

    Returns:
        ``(...)``; every 0 / 0 is 0, so that empty boxes give no NaN.

    Raises:
        ConfigError: unknown mode or angle gradient.
    """
    check_iou_mode(mode, angle_gradient)
    inter = _sides(
        _larger(pred[..., :2], target[..., :2]), _smaller(pred[..., 2:], target[..., 2:])
    ).prod(-1)
    areas = [_sides(box[..., :2], box[..., 2:]).prod(-1) for box in (pred, target)]
    union = areas[0] + areas[1] - inter
    iou = _safe_divide(inter, union)
    score = iou if mode == 'iou' else iou - _penalty(pred, target, iou, union, mode, angle_gradient)
    has_area = (target[..., 2:] > target[..., :2]).all(-1)
    return torch.where(has_area, 1 - score, 0.0)


def _penalty(
    pred: Tensor, target: Tensor, iou: Tensor, union: Tensor, mode: str, angle_gradient: str
) -> Tensor:
    """The term that a mode subtracts from the plain IoU, ``(...)``."""
    # Sides of the smallest box around both.
    hull = _sides(_smaller(pred[..., :2], target[..., :2]), _larger(pred[..., 2:], target[..., 2:]))
    if mode == 'giou':
        enclosing = hull.prod(-1)
        return _safe_divide(enclosing - union, enclosing)
    offset = (pred[..., :2] + pred[..., 2:] - target[..., :2] - target[..., 2:]) / 2
    distance = _safe_divide((offset**2).sum(-1), (hull**2).sum(-1))
    if mode == 'diou':
        return distance
    sides = [_sides(box[..., :2], box[..., 2:]) for box in (pred, target)]
    # v compares the aspect ratios as angles; v and alpha are named as in the paper.
    angles = [torch.atan(_safe_divide(side[..., 0], side[..., 1])) for side in sides]
    v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    alpha = _safe_divide(v, (1 - iou) + v)
    return distance + (alpha.detach() if angle_gradient == 'paper' else alpha) * v


def _safe_divide(a: Tensor, b: Tensor) -> Tensor:
    """``a / b``, 0 where ``b`` is 0."""
    zero = b == 0
    # The inner where keeps the gradient finite: a NaN in the branch not taken would still spread.
    return torch.where(zero, 0.0, a / torch.where(zero, 1.0, b))


def _larger(a: Tensor, b: Tensor) -> Tensor:
    """Maximum whose gradient goes to the prediction ``a`` on ties (torch.maximum halves it)."""
    return torch.where(a >= b, a, b)


def _smaller(a: Tensor, b: Tensor) -> Tensor:
    """Minimum, with the gradient of ties as in :func:`_larger`."""
    return torch.where(a <= b, a, b)


def _sides(low: Tensor, high: Tensor) -> Tensor:
    """Width and height between corners ``(..., 2)``; 0, without gradient, where high <= low."""
    side = high - low
    return torch.where(side > 0, side, 0.0)
