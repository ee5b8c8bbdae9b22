"""The losses, with mmdet's signature so that other heads can use them, and their normaliser."""

import torch
from mmdet.models.dense_heads import FCOSHead, PAAHead
from mmdet.models.losses import accuracy
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn

from effdet_plugin.errors import ConfigError
from effdet_plugin.ops.box_loss import check_iou_mode, huber_loss, iou_loss
from effdet_plugin.ops.focal import sigmoid_focal_loss

# Deltas look like boxes by chance only, so some tell, and the others need no device sync.
ROWS_CHECKED = 100
NORMALIZERS = ('local', 'mean', 'global', 'constant')


class WeightedLoss(nn.Module):
    """What all losses share: weights, reduction and factor.

    Args:
        reduction: ``'mean'`` (divided by ``avg_factor``), ``'sum'`` or ``'none'``.
        loss_weight: factor.
    """

    def __init__(self, reduction: str = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
        self.reduction = reduction
        self.loss_weight = loss_weight

    def unreduced(self, pred: Tensor, target: Tensor) -> Tensor:
        """Loss of each row ``(N,)`` or of each element."""
        raise NotImplementedError

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        reduction_override: str | None = None,
        **others: object,
    ) -> Tensor:
        """Weighted and reduced loss, computed in float32 for any type of ``pred``.

        Args:
            pred: see the loss.
            target: see the loss.
            weight: of the shape of the unreduced loss. ``(N,)`` counts for each value of a row;
                where the loss has one value per row, the mean of ``(N, K)`` over K counts.
            avg_factor: divisor of the sum.
            reduction_override: replaces ``reduction``.
            **others: what some heads pass to their own loss.

        Returns:
            A scalar, or the unreduced loss for ``'none'``.

        Raises:
            ConfigError: weights that are not of these rows (FSAF), or further arguments
                (CenterNet's second version).
        """
        if others:
            raise ConfigError(
                f'{type(self).__name__} takes no {", ".join(others)}, which this head passes: keep '
                'its own loss'
            )
        loss = self.unreduced(pred, target)
        if weight is not None:
            weight = weight.float()
            weight = weight.mean(-1) if weight.dim() > loss.dim() else weight
            # Without this, four rows of four values would broadcast the wrong way.
            weight = weight.unsqueeze(-1) if weight.dim() < loss.dim() else weight
            if len(weight) != len(loss):
                raise ConfigError(
                    f'{type(self).__name__} has {len(loss)} rows, but this head weights '
                    f'{len(weight)} single elements: keep its own loss'
                )
        reduction = reduction_override or self.reduction
        return self.loss_weight * weight_reduce_loss(loss, weight, reduction, avg_factor)


@MODELS.register_module()
class SigmoidFocalLoss(WeightedLoss):
    """EfficientDet's focal loss of logits ``(N, C)`` and labels ``(N,)``; one value per row.

    Labels are int64 in ``0 .. C-1``, ``C`` for background. Label smoothing applies to the
    cross-entropy only. No one-hot target is built: forward and backward each hold two float32
    tensors of the logits' shape, one of which becomes the gradient.

    Args:
        use_sigmoid: True, and to be written in the config: mmdet's heads read it there and would
            give background a channel of its own where it is not.
        gamma: exponent of the modulating factor; 1.5 in EfficientDet, 2 in RetinaNet.
        alpha: weight of positives.
        label_smoothing: 0 for none.
        reduction: see :class:`WeightedLoss`.
        loss_weight: factor.

    Raises:
        ConfigError: ``use_sigmoid`` is missing or not True; targets that are no labels (heat maps,
            soft scores); a RoI head that has a channel for background all the same.
    """

    # mmdet's RoI heads have C + 1 channels and a softmax unless the loss has these.
    custom_cls_channels = custom_activation = True
    channels: int | None = None

    def __init__(
        self,
        use_sigmoid: bool | None = None,
        gamma: float = 1.5,
        alpha: float = 0.25,
        label_smoothing: float = 0.0,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction, loss_weight)
        if use_sigmoid is not True:
            problem = 'is missing' if use_sigmoid is None else f'{use_sigmoid!r} is not supported'
            raise ConfigError(
                f"SigmoidFocalLoss: use_sigmoid {problem}; write use_sigmoid=True: mmdet's heads "
                'read it from the config, and give background a channel where it is missing'
            )
        self.use_sigmoid = use_sigmoid
        self.gamma = gamma
        self.alpha = alpha
        self.label_smoothing = label_smoothing

    def unreduced(self, pred: Tensor, target: Tensor) -> Tensor:
        """Loss of each row, summed over its classes."""
        is_labels = (
            isinstance(target, Tensor) and target.dim() == 1 and not target.is_floating_point()
        )
        if not is_labels or pred.dim() != 2:
            raise ConfigError(
                'SigmoidFocalLoss takes logits (N, C) and labels (N,); this head has other targets '
                '(soft scores or heat maps): keep its own loss_cls'
            )
        if self.channels not in (None, pred.shape[1]):
            raise ConfigError(
                f'SigmoidFocalLoss: {pred.shape[1]} channels for {self.channels} classes in this '
                'head, so background is a class: keep its own loss_cls'
            )
        return sigmoid_focal_loss(pred, target, self.alpha, self.gamma, self.label_smoothing)

    def get_cls_channels(self, num_classes: int) -> int:
        """Channels of a RoI head of mmdet's: none for background."""
        self.channels = num_classes
        return num_classes

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Logits ``(N, C)`` -> scores ``(N, C + 1)``; mmdet leaves out the last, background's 0."""
        return nn.functional.pad(cls_score.sigmoid(), (0, 1))

    def get_accuracy(self, cls_score: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Percentage of the objects of a RoI head, background left out, with the right class."""
        objects = labels < cls_score.shape[1]
        return dict(acc=accuracy(cls_score[objects], labels[objects]))


def check_channels(model: nn.Module) -> None:
    """Refuse heads that no loss can tell: what they do is neither in its arguments nor its targets.

    PAA's, which compares losses of single anchors, would compare their boxes' alone.
    A RoI head that has a channel for background beside `SigmoidFocalLoss` (SABL's): mmdet's other
    RoI heads ask the loss for its channels. And a head that gives `HuberLoss` decoded boxes: in
    pixels, nearly all errors are beyond any ``delta``, and large boxes outweigh small ones.

    Raises:
        ConfigError: There is such a head.
    """
    for name, head in model.named_modules():
        gives_boxes = getattr(head, 'reg_decoded_bbox', False) or isinstance(head, FCOSHead)
        if gives_boxes and isinstance(getattr(head, 'loss_bbox', None), HuberLoss):
            raise ConfigError(
                f'{name}: HuberLoss: {type(head).__name__} passes boxes in pixels, not deltas: '
                'take BoxIoULoss, or set reg_decoded_bbox=False where the head has it'
            )
        layer = getattr(head, 'fc_cls', None)
        if not isinstance(getattr(head, 'loss_cls', None), SigmoidFocalLoss):
            continue
        if isinstance(head, PAAHead):
            raise ConfigError(
                f'{name}: SigmoidFocalLoss: {type(head).__name__} sums the losses of an anchor '
                'over its classes, which here are one number: keep its own loss_cls'
            )
        if isinstance(layer, nn.Linear) and layer.out_features == head.num_classes + 1:
            raise ConfigError(
                f'{name}: SigmoidFocalLoss: {type(head).__name__} has {layer.out_features} '
                f'channels for {head.num_classes} classes, so background is a class: keep its own '
                'loss_cls'
            )


@MODELS.register_module()
class HuberLoss(WeightedLoss):
    """Huber loss of deltas ``(N, 4)``, elementwise.

    It is not divided by ``delta`` (mmdet's ``SmoothL1Loss(beta=delta)`` is).

    Args:
        delta: error above which the loss is linear; 0.1 in EfficientDet.
        reduction: see :class:`WeightedLoss`.
        loss_weight: factor. EfficientDet has 50 and divides by 4 times the number of positives:
            pass ``avg_factor = 4 * N``.
    """

    def __init__(
        self, delta: float = 0.1, reduction: str = 'mean', loss_weight: float = 1.0
    ) -> None:
        super().__init__(reduction, loss_weight)
        self.delta = delta

    def unreduced(self, pred: Tensor, target: Tensor) -> Tensor:
        """Loss of each element."""
        return huber_loss(pred.float(), target.float(), self.delta)


@MODELS.register_module()
class BoxIoULoss(WeightedLoss):
    """IoU, GIoU, DIoU or CIoU loss of xyxy boxes ``(N, 4)``; one value per row.

    mmdet's own losses can be used as well. They add an epsilon where this returns 0 for 0 / 0, and
    targets without area have a loss there.

    Args:
        mode: ``'iou'``, ``'giou'``, ``'diou'`` or ``'ciou'``.
        angle_gradient: of ``'ciou'``: ``'paper'`` or ``'reference'``, see
            :func:`~effdet_plugin.ops.iou_loss`.
        reduction: see :class:`WeightedLoss`.
        loss_weight: factor.

    Raises:
        ConfigError: unknown mode or angle gradient; targets that are deltas.
    """

    def __init__(
        self,
        mode: str = 'giou',
        angle_gradient: str = 'paper',
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(reduction, loss_weight)
        check_iou_mode(mode, angle_gradient)
        self.mode = mode
        self.angle_gradient = angle_gradient
        self.unchecked_rows = ROWS_CHECKED

    def unreduced(self, pred: Tensor, target: Tensor) -> Tensor:
        """Loss of each pair."""
        if self.unchecked_rows > 0 and len(target):
            self.unchecked_rows -= int((target != 0).any(-1).sum())
            if (target[..., 2:] < target[..., :2]).any():
                raise ConfigError(
                    'BoxIoULoss: targets are no boxes (x1, y1, x2, y2) but deltas; set '
                    'reg_decoded_bbox=True in the head, or keep its own loss_bbox'
                )
        return iou_loss(pred.float(), target.float(), self.mode, self.angle_gradient)


def loss_normalizer(kind: str, num_positives: Tensor, value: float = 100.0) -> Tensor:
    """Divisor of the losses of one process, without a device sync.

    Source: google/automl efficientdet/tf2/train_lib.py, which has ``'local'``.

    Args:
        kind: ``'local'``: positives + 1; ``'mean'``: their mean over processes + 1; ``'global'``:
            (their sum over processes + 1) / processes, the only one with which N processes give
            the gradient of one process with the whole batch; ``'constant'``: ``value``.
        num_positives: scalar float, matched anchors of this process.
        value: of ``'constant'``.

    Raises:
        ConfigError: unknown kind.
    """
    if kind not in NORMALIZERS:
        raise ConfigError(
            f'loss_normalizer={kind!r} is unknown; choose one of {", ".join(NORMALIZERS)}'
        )
    if kind == 'constant':
        return torch.full_like(num_positives, value)
    if kind == 'local':
        return num_positives + 1
    total, world = num_positives.clone(), get_world_size()
    all_reduce(total)
    # DDP averages gradients over processes, hence the sum is divided by their number.
    return (total + 1) / world if kind == 'global' else total / world + 1
