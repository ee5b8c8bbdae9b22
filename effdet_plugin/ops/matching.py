"""Assignment of boxes to anchors for a whole batch: no loop, no host synchronisation."""

import torch
from torch import Tensor

from effdet_plugin.ops.boxes import pairwise_iou

NO_MATCH = -1


def match_anchors(
    anchors: Tensor,
    boxes: Tensor,
    valid: Tensor,
    positive_iou: float = 0.5,
    force_match: bool = True,
) -> Tensor:
    """Give each anchor its box, the reference's way (argmax matcher with forced matches).

    An anchor takes the box of highest IoU (the first on ties) if that is at least ``positive_iou``.
    Then each box takes its best anchor (the first on ties) whatever the IoU, overriding the former;
    where several boxes want one anchor, the first box gets it and the others may stay without any.

    Args:
        anchors: ``(N, 4)`` xyxy.
        boxes: ``(B, G, 4)`` xyxy, padded.
        valid: ``(B, G)`` bool, False for padding. Boxes without area should be dropped before:
            one that overlaps nothing takes anchor 0, as in the reference.
        positive_iou: IoU from which on an anchor is positive; below it is background, nothing is
            ignored.
        force_match: see above.

    Returns:
        ``(B, N)`` int64 index into ``G``, or -1 for background.
    """
    batch, num_boxes = valid.shape
    num_anchors = anchors.shape[0]
    if num_boxes == 0 or num_anchors == 0:
        return anchors.new_full((batch, num_anchors), NO_MATCH, dtype=torch.long)
    # Padding loses every comparison with -1; real IoUs are >= 0.
    iou = pairwise_iou(boxes.float(), anchors.float()).masked_fill_(
        ~valid.unsqueeze(-1), -1.0
    )  # (B, G, N)
    best_iou, best_box = iou.max(dim=1)  # (B, N)
    matched = best_box.masked_fill(best_iou < positive_iou, NO_MATCH)
    if not force_match:
        return matched
    best_anchor = iou.argmax(dim=2)  # (B, G)
    index = torch.arange(num_boxes, device=boxes.device).expand(batch, -1)
    index = index.masked_fill(~valid, num_boxes)
    forced = index.new_full((batch, num_anchors), num_boxes)
    forced.scatter_reduce_(1, best_anchor, index, reduce='amin')  # the first box in order wins
    return torch.where(forced < num_boxes, forced, matched)
