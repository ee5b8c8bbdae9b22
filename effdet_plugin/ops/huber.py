"""Huber loss, not divided by delta (the reference's form)."""

import torch
from torch import Tensor


def huber_loss(pred: Tensor, target: Tensor, delta: float = 0.1) -> Tensor:
    """``0.5 e^2`` where ``|e| <= delta``, else ``delta |e| - 0.5 delta^2``; any shape, elementwise.

    An error of 0.4 at delta 0.1 costs 0.035. ``SmoothL1`` with ``beta = delta`` is this divided by
    delta.
    """
    return torch.nn.functional.huber_loss(pred, target, reduction='none', delta=delta)
