"""Huber loss on box deltas."""

from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor, nn

from effdet_plugin.ops.huber import huber_loss


@MODELS.register_module()
class HuberLoss(nn.Module):
    """Huber loss, not divided by ``delta`` (mmdet's ``SmoothL1Loss(beta=delta)`` is).

    Args:
        delta: error from which on the loss is linear; 0.1 in the reference.
        reduction: ``'mean'`` (divided by ``avg_factor``), ``'sum'`` or ``'none'``.
        loss_weight: factor. The reference has 50, and divides by 4 times the positives:
            give ``avg_factor = 4 * N``.
    """

    def __init__(
        self, delta: float = 0.1, reduction: str = 'mean', loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.delta = delta
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Loss of deltas ``(N, 4)``, ``weight`` of the same shape; computed in float32."""
        loss = huber_loss(pred.float(), target.float(), self.delta)
        reduction = reduction_override or self.reduction
        return self.loss_weight * weight_reduce_loss(loss, weight, reduction, avg_factor)
