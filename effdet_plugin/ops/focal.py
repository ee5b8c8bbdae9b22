"""Sigmoid focal loss over label indices, without a one-hot target and in two buffers.

With label indices the loss of a row is the background loss of all its classes, except for the one
positive class, whose term is written over it. Forward and backward each work in place on two
float32 tensors of the logits' shape; in backward one of them becomes the gradient. From forward to
backward only the logits and labels are kept.

Source: Lin et al., ICCV 2017, eq. 5; ``FocalLoss`` in google/automl efficientdet/tf2/train_lib.py:
``p_t`` and ``alpha_t`` come from the unsmoothed target, the cross-entropy from the smoothed one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx


def _one_minus_pt_and_bce(x: Tensor, target: float) -> tuple[Tensor, Tensor]:
    """``1 - p_t`` and binary cross-entropy of background logits: new tensors, float32 or wider.

    Args:
        x: logits of background entries. A positive entry with the logit ``x`` is passed as a
            background entry with the logit ``-x``, which has the same loss: in this form
            ``1 - p_t`` is computed without cancellation for both.
        target: target of the cross-entropy: 0, or half of the label smoothing.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    bce = F.softplus(wide)
    if target:  # softplus(x) - target * x
        bce.sub_(wide, alpha=target)
    # The caller's logits must not be overwritten; a float32 copy of half-precision ones may be.
    return wide.sigmoid() if wide is x else wide.sigmoid_(), bce


def _power(base: Tensor, gamma: float) -> Tensor:
    """``base ** gamma`` in place."""
    if gamma == 1.5 and base.device.type == 'cpu':
        # The reference's exponent. torch has vectorised roots and cubes, but no 1.5: on a CPU 4
        # times as fast; a GPU waits for memory, where one pass is better than two.
        return base.sqrt_().pow_(3)
    return base.pow_(gamma)


def _focal(x: Tensor, gamma: float, target: float) -> Tensor:
    """Focal loss of background logits, without ``alpha``."""
    one_minus_pt, bce = _one_minus_pt_and_bce(x, target)
    return bce.mul_(_power(one_minus_pt, gamma))


def _focal_grad(x: Tensor, gamma: float, target: float) -> Tensor:
    """Derivative of :func:`_focal` with respect to its logits."""
    one_minus_pt, bce = _one_minus_pt_and_bce(x, target)
    # With q = 1 - p_t the derivative is q^gamma * (gamma * bce * (1 - q) + q - target). The first
    # two terms are lerp(gamma * bce, 1, q), which needs no third tensor for 1 - q.
    grad = bce.mul_(gamma).lerp_(bce.new_ones(()), one_minus_pt)
    if target:
        grad.sub_(target)
    return grad.mul_(_power(one_minus_pt, gamma))


class _FocalSum(torch.autograd.Function):
    """Per-row sums ``(N,)`` of the focal loss; saves the logits and labels only."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        logits: Tensor,
        labels: Tensor,
        alpha: float,
        gamma: float,
        smoothing: float,
    ) -> Tensor:
        ctx.save_for_backward(logits, labels)
        ctx.settings = (alpha, gamma, 0.5 * smoothing)  # type: ignore[attr-defined]
        positive, index = _positives(labels, logits.shape[1])
        loss = _focal(logits, gamma, 0.5 * smoothing).mul_(1 - alpha)
        at_positive = _focal(-logits.gather(1, index), gamma, 0.5 * smoothing).mul_(alpha)
        return _scatter_positive(loss, positive, index, at_positive).sum(1)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_rows: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, labels = ctx.saved_tensors  # type: ignore[attr-defined]
        alpha, gamma, target = ctx.settings  # type: ignore[attr-defined]
        positive, index = _positives(labels, logits.shape[1])
        grad_rows = grad_rows.unsqueeze(1)
        grad = _focal_grad(logits, gamma, target).mul_((1 - alpha) * grad_rows)
        # Minus: the chain rule for the logit -x of a positive entry.
        at_positive = _focal_grad(-logits.gather(1, index), gamma, target).mul_(-alpha * grad_rows)
        _scatter_positive(grad, positive, index, at_positive)
        return grad.to(logits.dtype), None, None, None, None


def _positives(labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Whether each row has a positive class, and a valid class index for it, both ``(N, 1)``."""
    labels = labels.unsqueeze(1)
    index = labels.clamp(0, num_classes - 1)
    return labels == index, index


def _scatter_positive(
    values: Tensor, positive: Tensor, index: Tensor, at_positive: Tensor
) -> Tensor:
    """Replace ``values`` ``(N, C)`` at class ``index`` ``(N, 1)`` of positive rows, in place."""
    # Background rows get their own value back: selecting rows would need a device sync.
    return values.scatter_(1, index, torch.where(positive, at_positive, values.gather(1, index)))


def sigmoid_focal_loss(
    logits: Tensor,
    labels: Tensor,
    alpha: float = 0.25,
    gamma: float = 1.5,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Focal loss of each row, summed over its classes.

    Args:
        logits: ``(N, C)`` before the sigmoid, any float type; computed in float32 (float64 stays).
        labels: ``(N,)`` int64 in ``0 .. C-1``; anything else is background for all classes.
        alpha: weight of positives; background has ``1 - alpha``.
        gamma: exponent of the modulating factor ``(1 - p_t) ** gamma``.
        label_smoothing: ``s`` of the target ``t (1 - s) + 0.5 s`` of the cross-entropy.

    Returns:
        ``(N,)`` float32; float64 for float64 logits.
    """
    return _FocalSum.apply(logits, labels, alpha, gamma, label_smoothing)
