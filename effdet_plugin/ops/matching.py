"""Assignment of boxes to anchors, a batch at once: no loop over images, no host synchronisation."""

import torch
from torch import Tensor

from effdet_plugin.ops.boxes import pairwise_iou

NO_MATCH = -1
# Boxes that meet all anchors at a time: the IoUs of the hundreds in one crowded picture, times the
# batch, would be gigabytes. Nearly every batch has fewer, and takes one step.
BLOCK = 64


def match_anchors(
    anchors: Tensor,
    boxes: Tensor,
    valid: Tensor,
    pos_iou_thr: float = 0.5,
    match_low_quality: bool = True,
) -> Tensor:
    """Give each anchor its box, the reference's way (argmax matcher with forced matches).

    An anchor takes the box of highest IoU (the first on ties) if that is at least ``pos_iou_thr``.
    Then each box takes its best anchor (the first on ties) whatever the IoU, overriding the former;
    where several boxes want one anchor, the first box gets it and the others may stay without any.

    Args:
        anchors: ``(N, 4)`` xyxy.
        boxes: ``(B, G, 4)`` xyxy, padded.
        valid: ``(B, G)`` bool, False for padding. Boxes without area should be dropped before:
            one that overlaps nothing takes anchor 0, as in the reference.
        pos_iou_thr: IoU from which on an anchor is positive; below it is background, nothing is
            ignored.
        match_low_quality: see above.

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
    # Smaller is stronger: a forced match is its box 0 .. G-1, another one G .. 2G-1, none 2G.
    # (As two tensors, merged, torch 2.13 compiles it to a merge before the scatter.)
    none = 2 * num_boxes
    match = torch.where(best_iou < pos_iou_thr, none, best_box + num_boxes)
    index = torch.arange(num_boxes, device=boxes.device).expand(batch, -1)
    index = index.masked_fill(~valid, none)
    match.scatter_reduce_(1, best_anchor, index, reduce='amin')  # the first box in order wins
    return torch.where(match < none, match % num_boxes, NO_MATCH)


def _best(anchors: Tensor, boxes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Highest IoU and its box of each anchor ``(B, N)``; best anchor of each box ``(B, G)``."""
    best_iou, best_box, best_anchor = _best_of_block(anchors, boxes[:, :BLOCK], valid[:, :BLOCK])
    for start in range(BLOCK, boxes.shape[1], BLOCK):
        block = slice(start, start + BLOCK)
        iou, box, anchor = _best_of_block(anchors, boxes[:, block], valid[:, block])
        best_box = torch.where(iou > best_iou, box + start, best_box)  # the first on ties
        best_iou = torch.maximum(best_iou, iou)
        best_anchor = torch.cat([best_anchor, anchor], dim=1)
    return best_iou, best_box, best_anchor


def _best_of_block(anchors: Tensor, boxes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same of all boxes at once; ``(B, G, N)`` is gone when it returns."""
    # Padding loses every comparison with -1; real IoUs are >= 0.
    iou = pairwise_iou(boxes, anchors).masked_fill_(~valid.unsqueeze(-1), -1.0)
    best_iou, best_box = iou.max(dim=1)
    return best_iou, best_box, iou.argmax(dim=2)
