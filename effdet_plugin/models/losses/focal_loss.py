"""Sigmoid focal loss over label indices."""

from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor, nn

from effdet_plugin.errors import ConfigError
from effdet_plugin.ops.focal import sigmoid_focal_loss


@MODELS.register_module()
class SigmoidFocalLoss(nn.Module):
    """Focal loss of EfficientDet, in mmdet's form.

    It has label smoothing (in the cross-entropy only, as the reference) and builds no one-hot
    target. Forward and backward each hold two float32 tensors of the logits' shape, one of which
    becomes the gradient. Computed in float32.

    Args:
        use_sigmoid: only True; named because mmdet's heads ask for it.
        gamma: exponent of the modulating factor. The reference has 1.5, RetinaNet 2.
        alpha: weight of positives.
        label_smoothing: 0 for none.
        reduction: ``'mean'`` (divided by ``avg_factor``), ``'sum'`` or ``'none'`` (per row, summed
            over its classes).
        loss_weight: factor.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: float = 1.5,
        alpha: float = 0.25,
        label_smoothing: float = 0.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not use_sigmoid:
            raise ConfigError('SigmoidFocalLoss: use_sigmoid=False is not supported')
        self.use_sigmoid = use_sigmoid
        self.gamma = gamma
        self.alpha = alpha
        self.label_smoothing = label_smoothing
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
        """Loss of classification logits.

        Args:
            pred: ``(N, C)`` logits.
            target: ``(N,)`` int64 labels in ``0 .. C-1``, ``C`` for background.
            weight: ``(N,)`` weight of each row, 0 ignores it; or ``(N, 1)``.
            avg_factor: divisor of the sum.
            reduction_override: replaces ``reduction``.

        Returns:
            A scalar, or ``(N,)`` for ``'none'``.
        """
        rows = sigmoid_focal_loss(pred, target, self.alpha, self.gamma, self.label_smoothing)
        if weight is not None:
            weight = weight.reshape(-1).float()
        reduction = reduction_override or self.reduction
        return self.loss_weight * weight_reduce_loss(rows, weight, reduction, avg_factor)
