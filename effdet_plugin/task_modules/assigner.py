"""EfficientDet's assignment, for a whole batch and with mmdet's per-image interface."""

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from effdet_plugin.errors import ConfigError
from effdet_plugin.ops.boxes import pairwise_iou
from effdet_plugin.ops.matching import match_anchors

# Pixels from a side of the box, as in mmdet's ATSSAssigner.
MARGIN = 0.01


@TASK_UTILS.register_module()
class BatchMaxIoUAssigner(BaseAssigner):
    """Assign by highest IoU, with forced matches; see :func:`~effdet_plugin.ops.match_anchors`.

    It differs from mmdet's ``MaxIoUAssigner`` in the forced match: each box takes one anchor (the
    first on ties), even at IoU 0, and where several boxes want the same anchor the first box gets
    it. No anchor is ignored.

    Args:
        pos_iou_thr: an anchor of this IoU or more is positive.
        match_low_quality: assign each box to its best anchor whatever the IoU.
    """

    def __init__(self, pos_iou_thr: float = 0.5, match_low_quality: bool = True) -> None:
        self.pos_iou_thr = pos_iou_thr
        self.match_low_quality = match_low_quality

    def assign_batch(self, priors: Tensor, boxes: Tensor, valid: Tensor) -> Tensor:
        """Assign the boxes of a whole batch.

        Args:
            priors: anchors ``(N, 4)`` xyxy.
            boxes: ``(B, G, 4)`` xyxy, padded.
            valid: ``(B, G)`` bool, False for padding.

        Returns:
            ``(B, N)`` int64 index of each anchor's box, or -1 for background.
        """
        return match_anchors(priors, boxes, valid, self.pos_iou_thr, self.match_low_quality)

    def assign(self, pred_instances: InstanceData, *data: object, **named: object) -> AssignResult:
        """mmdet's interface: one image.

        Heads that also pass the number of priors of each level (ATSS, GFL, DDOD) take distances
        from the centre of an anchor to the sides of its box. There, an anchor whose centre is not
        in the box is background, as with mmdet's ``ATSSAssigner``, even if it was forced.

        Args:
            pred_instances: has ``priors`` ``(N, 4)`` xyxy.
            *data: the first ``InstanceData`` is ``gt_instances``, which has ``bboxes`` ``(G, 4)``
                xyxy and ``labels`` ``(G,)``. Nothing is ignored, and other data is not used.
            **named: likewise, by name.

        Returns:
            For each anchor ``gt_inds`` (the number of its box, from 1; 0 for background),
            ``max_overlaps`` (its IoU with that box) and ``labels`` (-1 for background).

        Raises:
            ConfigError: the head assigns to points or predictions, not to boxes.
        """
        truths = [x for x in (*data, named.get('gt_instances')) if isinstance(x, InstanceData)]
        priors = _boxes_of(pred_instances)
        if not truths or priors is None:
            raise ConfigError(
                'BatchMaxIoUAssigner assigns anchors or proposals (x1, y1, x2, y2); this head '
                'assigns points, cells or predictions: keep its own assigner'
            )
        gt_instances = truths[0]
        boxes = get_box_tensor(gt_instances.bboxes)
        # A batch of one: the same code as for our own head.
        valid = torch.ones((1, len(boxes)), dtype=torch.bool, device=boxes.device)
        matched = self.assign_batch(priors, boxes[None], valid)[0]
        if 'num_level_priors' in named or (data and isinstance(data[0], list)):
            matched = torch.where(_center_inside(priors, boxes, matched), matched, -1)
        positive = matched >= 0
        if len(boxes) == 0:
            overlaps, labels = priors.new_zeros(len(priors)), matched
        else:
            # The IoU is computed again: match_anchors keeps none, to save memory in our own head.
            index = matched.clamp(min=0)
            iou = pairwise_iou(boxes.float(), priors.float()).gather(0, index[None])[0]
            overlaps = torch.where(positive, iou, 0.0)
            labels = torch.where(positive, gt_instances.labels[index], -1)
        # mmdet counts boxes from 1; -1 would mean ignored.
        return _PlainResult(len(boxes), matched + 1, overlaps, labels=labels)


class _PlainResult(AssignResult):
    """Refuses heads that need what only their own assigner finds (TOOD, YOLOF)."""

    def get_extra_property(self, key: str) -> None:
        """None for what heads can do without."""
        if key != 'shadowed_labels':
            raise _needs(key)

    @property
    def assign_metrics(self) -> Tensor:
        """TOOD's."""
        raise _needs('assign_metrics')


def _needs(key: str) -> ConfigError:
    return ConfigError(
        f'BatchMaxIoUAssigner finds no {key!r}, which this head needs: keep its own assigner'
    )


def _boxes_of(instances: InstanceData) -> Tensor | None:
    """Priors ``(N, 4)`` xyxy; None if there are none, or points with strides, or cells (YOLOv3)."""
    priors = get_box_tensor(instances.get('priors', torch.empty(0)))
    if 'responsible_flags' in instances:
        return None
    is_boxes = priors.shape[-1] == 4 and not (priors[:, 2:] < priors[:, :2]).any()
    return priors if is_boxes else None


def _center_inside(priors: Tensor, boxes: Tensor, matched: Tensor) -> Tensor:
    """Whether the centre of each prior is in its matched box: ``(N, 4), (G, 4), (N,) -> (N,)``."""
    if len(boxes) == 0:
        return matched >= 0
    own = boxes[matched.clamp(min=0)]
    center = (priors[:, :2] + priors[:, 2:]) / 2
    return torch.cat([center - own[:, :2], own[:, 2:] - center], dim=1).amin(1) > MARGIN
