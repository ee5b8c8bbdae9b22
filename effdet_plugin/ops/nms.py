"""Batched non-maximum suppression in plain torch: hard and Gaussian, class-wise or class-agnostic.

All images of a batch are suppressed together and nothing waits for the device: each of
``max_per_img`` rounds takes the best remaining candidate of every image and lowers the scores of
those that it overlaps. Gaussian decay only lowers scores, so ``max_per_img`` rounds give the exact
result for any number of candidates.

Source: Bodla et al., "Soft-NMS", ICCV 2017; google/automl efficientdet/tf2/postprocess.py, which
calls TensorFlow's ``non_max_suppression_with_scores``.
"""

import torch
from torch import Tensor

from effdet_plugin.errors import ConfigError
from effdet_plugin.ops.boxes import box_area, one_to_many_iou

NMS_METHODS = ('gaussian', 'hard')
NEG_INF = float('-inf')


def check_nms_method(method: str) -> None:
    """Check an NMS method.

    Raises:
        ConfigError: unknown method.
    """
    if method not in NMS_METHODS:
        raise ConfigError(
            f'method={method!r} is not an NMS method; choose one of {", ".join(NMS_METHODS)}'
        )


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
        boxes: ``(B, K, 4)`` xyxy in pixels.
        scores: ``(B, K)`` probabilities; ``-inf`` marks padding.
        labels: ``(B, K)`` int64 classes.
        method: ``'hard'`` removes boxes of IoU > ``iou_thr`` with a kept one; ``'gaussian'``
            multiplies their scores by ``exp(-iou^2 / sigma)`` and has no IoU threshold.
        iou_thr: IoU threshold of ``'hard'``.
        sigma: width of ``'gaussian'`` (TensorFlow's ``soft_nms_sigma`` is half of it).
        score_thr: a candidate whose current score is this or lower is never kept.
        max_per_img: number of rounds and of returned rows.
        class_wise: boxes of different classes do not suppress each other.

    Returns:
        ``(B, max_per_img)`` int64 indices of the kept candidates (0 in unused rows), and their
        scores after decay, ``(B, max_per_img)`` float32, descending, ``-inf`` in unused rows.

    Raises:
        ConfigError: unknown method.
    """
    check_nms_method(method)
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
