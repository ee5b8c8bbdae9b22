"""Batched non-maximum suppression in plain torch: hard and Gaussian, class-wise or class-agnostic.

All images of a batch are suppressed together and nothing waits for the device: each of
``max_per_img`` rounds takes every image's best remaining candidate and lowers the scores that it
overlaps. Gaussian decay only lowers scores, so that many rounds give the exact answer whatever the
number of candidates.
"""

import torch
from torch import Tensor

from effdet_plugin.errors import ConfigError
from effdet_plugin.ops.boxes import box_area

NEG_INF = float('-inf')


def _iou_with(box: Tensor, area: Tensor, boxes: Tensor, areas: Tensor) -> Tensor:
    """IoU of one box per image ``(B, 4)`` with its candidates ``(B, K, 4)`` -> ``(B, K)``."""
    top_left = torch.maximum(boxes[..., :2], box[:, None, :2])
    bottom_right = torch.minimum(boxes[..., 2:], box[:, None, 2:])
    side = (bottom_right - top_left).clamp_(min=0)
    inter = side[..., 0] * side[..., 1]
    return torch.where(inter > 0, inter / (areas + area - inter), 0.0)


def batched_nms(
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
    """Suppress candidates of each image greedily by their current score; the first wins ties.

    Args:
        boxes: ``(B, K, 4)`` xyxy.
        scores: ``(B, K)``; ``-inf`` marks padding.
        labels: ``(B, K)`` classes; boxes of different classes do not meet if ``class_wise``.
        method: ``'hard'`` drops boxes of IoU > ``iou_thr`` with a kept one; ``'gaussian'``
            multiplies their scores by ``exp(-iou^2 / sigma)`` (Bodla et al., ICCV 2017) and has no
            IoU cut.
        iou_thr: of ``'hard'``.
        sigma: of ``'gaussian'`` (TensorFlow's ``soft_nms_sigma`` is half of it).
        score_thr: a candidate of this or a lower current score is never taken.
        max_per_img: number of rounds and of returned rows.
        class_wise: see ``labels``.

    Returns:
        keep ``(B, max_per_img)`` int64 index into K (0 where there is nothing), and the current
        scores of the kept, ``(B, max_per_img)`` float32, descending, ``-inf`` where there is
        nothing.

    Raises:
        ConfigError: unknown method.
    """
    if method not in ('hard', 'gaussian'):
        raise ConfigError(f"method={method!r} is not an NMS method; choose 'hard' or 'gaussian'")
    boxes, areas = boxes.float(), box_area(boxes.float())
    scores = torch.where(scores > score_thr, scores.float(), NEG_INF)
    batch, num = scores.shape
    keep = labels.new_zeros((batch, max_per_img), dtype=torch.long)
    kept_scores = scores.new_full((batch, max_per_img), NEG_INF)
    if num == 0:
        return keep, kept_scores
    rows = torch.arange(batch, device=boxes.device)
    for step in range(max_per_img):
        best_score, best = scores.max(dim=1)  # (B,), the first on ties
        keep[:, step], kept_scores[:, step] = best, best_score
        iou = _iou_with(boxes[rows, best], areas[rows, best, None], boxes, areas)
        if class_wise:
            iou = torch.where(labels == labels[rows, best, None], iou, 0.0)
        if method == 'hard':
            scores = torch.where(iou > iou_thr, NEG_INF, scores)
        else:
            scores = scores * torch.exp(iou * iou / -sigma)
            scores = torch.where(scores > score_thr, scores, NEG_INF)
        scores[rows, best] = NEG_INF
    return torch.where(kept_scores == NEG_INF, 0, keep), kept_scores
