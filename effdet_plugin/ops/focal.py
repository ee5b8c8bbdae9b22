"""Sigmoid focal loss over label indices, without a one-hot target and with a lean backward.

With label indices the loss of a row is the background loss of all its classes, but for the one
positive class, where another term is put. So the only logit-sized tensors are the logits, and in
backward their gradient.

Source: Lin et al., ICCV 2017, eq. 5; the reference's ``FocalLoss`` (google/automl
``efficientdet``): ``p_t`` and ``alpha_t`` come from the unsmoothed target, the cross-entropy from
the smoothed one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx


def _terms(
    x: Tensor, sign: float, alpha: float, gamma: float, target: float, grad: bool
) -> tuple[Tensor, Tensor | None]:
    """Loss (and derivative) of logits against one constant target.

    ``sign`` is +1 for a positive entry, -1 for background: ``1 - p_t = sigmoid(-sign * x)``;
    ``alpha`` is the weight of that kind, ``target`` the smoothed probability.
    """
    miss = torch.sigmoid(x * -sign)  # 1 - p_t
    # softplus(x) - target * x, in the form that keeps its digits where the prediction is right.
    entropy = F.softplus(-x) + (1 - target) * x if sign > 0 else F.softplus(x) - target * x
    modulator = miss if gamma == 1 else miss.pow(gamma)
    loss = alpha * modulator * entropy
    if not grad:
        return loss, None
    # d/dx miss^gamma = -sign * gamma * miss^gamma * p_t ; d/dx entropy = sigmoid(x) - target
    slope = (-sign * gamma) * (1 - miss) * entropy + (torch.sigmoid(x) - target)
    return loss, alpha * modulator * slope


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
        ctx.settings = (alpha, gamma, smoothing)  # type: ignore[attr-defined]
        x = logits.to(torch.promote_types(logits.dtype, torch.float32))
        positive, index = _positives(labels, logits.shape[1])
        loss, _ = _terms(x, -1.0, 1 - alpha, gamma, 0.5 * smoothing, grad=False)
        at_positive, _ = _terms(
            x.gather(1, index), 1.0, alpha, gamma, 1 - 0.5 * smoothing, grad=False
        )
        return _put(loss, positive, index, at_positive).sum(1)

    @staticmethod
    def backward(ctx: FunctionCtx, grad_rows: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, labels = ctx.saved_tensors  # type: ignore[attr-defined]
        alpha, gamma, smoothing = ctx.settings  # type: ignore[attr-defined]
        x = logits.to(torch.promote_types(logits.dtype, torch.float32))
        positive, index = _positives(labels, logits.shape[1])
        grad = _terms(x, -1.0, 1 - alpha, gamma, 0.5 * smoothing, grad=True)[1]
        assert grad is not None
        _, at_positive = _terms(
            x.gather(1, index), 1.0, alpha, gamma, 1 - 0.5 * smoothing, grad=True
        )
        assert at_positive is not None
        _put(grad, positive, index, at_positive)
        return grad.mul_(grad_rows.unsqueeze(1)).to(logits.dtype), None, None, None, None


def _positives(labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Which rows have a positive class, and a safe class index, both ``(N, 1)``."""
    labels = labels.unsqueeze(1)
    positive = (labels >= 0) & (labels < num_classes)
    return positive, labels.clamp(0, num_classes - 1)


def _put(values: Tensor, positive: Tensor, index: Tensor, at_positive: Tensor) -> Tensor:
    """Replace ``values`` ``(N, C)`` at class ``index`` ``(N, 1)`` of positive rows, in place."""
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
        ``(N,)`` float32 (float64).
    """
    return _FocalSum.apply(logits, labels, alpha, gamma, label_smoothing)
