"""EfficientDet's assignment, for a whole batch and with mmdet's per-image interface."""

import torch
from mmdet.models.task_modules.assigners import AssignResult, BaseAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from effdet_plugin.ops.boxes import pairwise_iou
from effdet_plugin.ops.matching import match_anchors


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

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        **kwargs: object,
    ) -> AssignResult:
        """mmdet's interface: one image.

        Args:
            pred_instances: has ``priors`` ``(N, 4)`` xyxy.
            gt_instances: has ``bboxes`` ``(G, 4)`` and ``labels`` ``(G,)``.
            gt_instances_ignore: not used; nothing is ignored.
            **kwargs: not used; mmdet's heads pass further data to some assigners.

        Returns:
            For each anchor ``gt_inds`` (the number of its box, from 1; 0 for background),
            ``max_overlaps`` (its IoU with that box) and ``labels`` (-1 for background).
        """
        priors = get_box_tensor(pred_instances.priors)
        boxes = get_box_tensor(gt_instances.bboxes)
        # A batch of one: the same code as for our own head.
        valid = torch.ones((1, len(boxes)), dtype=torch.bool, device=boxes.device)
        matched = self.assign_batch(priors, boxes[None], valid)[0]
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
        return AssignResult(len(boxes), matched + 1, overlaps, labels=labels)
