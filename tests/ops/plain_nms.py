"""NMS as a plain loop over all rounds with minus infinity: what today's has to equal to the bit."""

import torch
from torch import Tensor

from effdet_plugin.ops.boxes import box_area

NEG_INF = float('-inf')


def one_to_many_iou(box: Tensor, area: Tensor, boxes: Tensor, areas: Tensor) -> Tensor:
    top_left = torch.maximum(boxes[..., :2], box[:, None, :2])
    bottom_right = torch.minimum(boxes[..., 2:], box[:, None, 2:])
    side = (bottom_right - top_left).clamp_(min=0)  # (B, K, 2)
    inter = side[..., 0] * side[..., 1]
    return torch.where(inter > 0, inter / (areas + area - inter), 0.0)


def plain_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    method: str = 'gaussian',
    iou_thr: float = 0.5,
    sigma: float = 0.5,
    score_thr: float = 0.001,
    max_per_img: int = 100,
    class_wise: bool = True,
) -> tuple[Tensor, Tensor]:
    boxes, areas = boxes.float(), box_area(boxes.float())
    scores = torch.where(scores > score_thr, scores.float(), NEG_INF)
    batch, num = scores.shape
    keep = labels.new_zeros((batch, max_per_img), dtype=torch.long)
    kept_scores = scores.new_full((batch, max_per_img), NEG_INF)
    if num == 0:  # max of an empty dimension is an error
        return keep, kept_scores
    rows = torch.arange(batch, device=boxes.device)
    for step in range(max_per_img):
        best_score, best = scores.max(dim=1)  # (B,), the first on ties
        # An image without candidates left takes row 0 with -inf: no branch, so no device sync.
        keep[:, step], kept_scores[:, step] = best, best_score
        iou = one_to_many_iou(boxes[rows, best], areas[rows, best, None], boxes, areas)
        if class_wise:
            iou = torch.where(labels == labels[rows, best, None], iou, 0.0)
        if method == 'hard':
            scores = torch.where(iou > iou_thr, NEG_INF, scores)
        else:
            scores = scores * torch.exp(iou * iou / -sigma)
            # The threshold applies to decayed scores, as in TensorFlow.
            scores = torch.where(scores > score_thr, scores, NEG_INF)
        # A kept box must not be taken again: decay does not remove it, nor does the IoU threshold
        # remove a box without area, whose IoU with itself is 0.
        scores[rows, best] = NEG_INF
    return torch.where(kept_scores == NEG_INF, 0, keep), kept_scores
