"""Assignment of boxes to anchors for a whole batch: no loop over images, no device sync.

Source: google/automl efficientdet/object_detection/argmax_matcher.py and target_assigner.py (the
reference).
"""

import torch
from torch import Tensor

from effdet_plugin.ops.boxes import pairwise_iou

NO_MATCH = -1
# Number of boxes of an image whose IoU with all anchors is computed at a time. All at once, a batch
# of crowded images with hundreds of boxes would take gigabytes. Most batches need one step.
BLOCK = 64


def match_anchors(
    anchors: Tensor,
    boxes: Tensor,
    valid: Tensor,
    pos_iou_thr: float = 0.5,
    match_low_quality: bool = True,
) -> Tensor:
    """Assign boxes to anchors by highest IoU, with forced matches.

    An anchor takes the box of highest IoU (the first on ties) if that is at least ``pos_iou_thr``.
    Then each box takes its best anchor (the first on ties) whatever the IoU, which overrides the
    first rule. Where several boxes have the same best anchor, the first box gets it, and the others
    may be left without any.

    Args:
        anchors: ``(N, 4)`` xyxy.
        boxes: ``(B, G, 4)`` xyxy, padded.
        valid: ``(B, G)`` bool, False for padding. Boxes without area should be False, too: a box
            that overlaps no anchor takes anchor 0, as in the reference.
        pos_iou_thr: an anchor of this IoU or more is positive, any other is background; none is
            ignored.
        match_low_quality: whether each box takes its best anchor whatever the IoU (forced match).

    Returns:
        ``(B, N)`` int64 index into ``G``, or -1 for background.
    """
    batch, num_boxes = valid.shape
    num_anchors = anchors.shape[0]
    if num_boxes == 0 or num_anchors == 0:
        return anchors.new_full((batch, num_anchors), NO_MATCH, dtype=torch.long)
    best_iou, best_box, best_anchor = _best(anchors.float(), boxes.float(), valid)
    if not match_low_quality:
        return best_box.masked_fill(best_iou < pos_iou_thr, NO_MATCH)
    # One tensor holds both rules: a forced match to box i has the value i, a match by threshold
    # i + G, no match 2G. The minimum of the scatter prefers forced matches, and among them the
    # first box. (Two tensors merged after the scatter fail: torch 2.13's compiler merges them
    # before it.)
    none = 2 * num_boxes
    match = torch.where(best_iou < pos_iou_thr, none, best_box + num_boxes)
    index = torch.arange(num_boxes, device=boxes.device).expand(batch, -1)
    index = index.masked_fill(~valid, none)
    match.scatter_reduce_(1, best_anchor, index, reduce='amin')
    return torch.where(match < none, match % num_boxes, NO_MATCH)


def _best(anchors: Tensor, boxes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Highest IoU and its box of each anchor ``(B, N)``; best anchor of each box ``(B, G)``."""
    best_iou, best_box, best_anchor = _best_of_block(anchors, boxes[:, :BLOCK], valid[:, :BLOCK])
    for start in range(BLOCK, boxes.shape[1], BLOCK):
        block = slice(start, start + BLOCK)
        iou, box, anchor = _best_of_block(anchors, boxes[:, block], valid[:, block])
        best_box = torch.where(iou > best_iou, box + start, best_box)  # > : the first on ties
        best_iou = torch.maximum(best_iou, iou)
        best_anchor = torch.cat([best_anchor, anchor], dim=1)
    return best_iou, best_box, best_anchor


def _best_of_block(anchors: Tensor, boxes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`_best` of one block of boxes; its IoUs ``(B, G, N)`` are freed on return."""
    # Padding gets the IoU -1, which loses every comparison: real IoUs are >= 0.
    iou = pairwise_iou(boxes, anchors).masked_fill_(~valid.unsqueeze(-1), -1.0)
    best_iou, best_box = iou.max(dim=1)
    return best_iou, best_box, iou.argmax(dim=2)
