"""Losses with mmdet's signature, so that they serve in other heads."""

from effdet_plugin.models.losses.box_iou_loss import BoxIoULoss
from effdet_plugin.models.losses.focal_loss import SigmoidFocalLoss
from effdet_plugin.models.losses.huber_loss import HuberLoss

__all__ = ['BoxIoULoss', 'HuberLoss', 'SigmoidFocalLoss']
