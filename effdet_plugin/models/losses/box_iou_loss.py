"""IoU losses in the reference's exact form."""

from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor, nn

from effdet_plugin.errors import ConfigError
from effdet_plugin.ops.iou_loss import ANGLE_GRADIENTS, MODES, iou_loss


@MODELS.register_module()
class BoxIoULoss(nn.Module):
    """IoU, GIoU, DIoU or CIoU loss.

    mmdet's own losses serve as well; they add an epsilon where this returns 0 for 0 / 0, and give
    empty targets a loss.

    Args:
        mode: ``'iou'``, ``'giou'``, ``'diou'`` or ``'ciou'``.
        angle_gradient: of ``'ciou'``: ``'paper'`` or ``'reference'``, see
            :func:`~effdet_plugin.ops.iou_loss`.
        reduction: ``'mean'`` (divided by ``avg_factor``), ``'sum'`` or ``'none'``.
        loss_weight: factor.
    """

    def __init__(
        self,
        mode: str = 'giou',
        angle_gradient: str = 'paper',
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ConfigError(f'mode={mode!r} is not an IoU loss; choose one of {", ".join(MODES)}')
        if angle_gradient not in ANGLE_GRADIENTS:
            raise ConfigError(
                f'angle_gradient={angle_gradient!r}; choose one of {", ".join(ANGLE_GRADIENTS)}'
            )
        self.mode = mode
        self.angle_gradient = angle_gradient
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
        """Loss of xyxy boxes ``(N, 4)``; ``weight`` is ``(N,)`` or ``(N, 4)`` (its mean counts)."""
        loss = iou_loss(pred.float(), target.float(), self.mode, self.angle_gradient)
        if weight is not None and weight.dim() > 1:
            weight = weight.mean(-1)
        reduction = reduction_override or self.reduction
        return self.loss_weight * weight_reduce_loss(loss, weight, reduction, avg_factor)
