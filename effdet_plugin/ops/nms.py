"""Batched non-maximum suppression in plain torch: hard and Gaussian, class-wise or class-agnostic.

All images of a batch are suppressed together and nothing waits for the device: each of
``max_per_img`` rounds takes the best remaining candidate of every image and lowers the scores of
those that it overlaps. Gaussian decay only lowers scores, so ``max_per_img`` rounds give the exact
result for any number of candidates.

One round is a pure function. Eager code calls it in a Python loop; an exported graph gets a loop
operator that ends as soon as no image has a candidate left. Eager code on a CPU, where starting
operators takes longer than computing them, has rounds of its own: `effdet_plugin.ops.nms_cpu`.

Source: Bodla et al., "Soft-NMS", ICCV 2017; google/automl efficientdet/tf2/postprocess.py, which
calls TensorFlow's ``non_max_suppression_with_scores``.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from effdet_plugin.errors import ConfigError
from effdet_plugin.ops.boxes import box_area, one_to_many_iou
from effdet_plugin.ops.nms_cpu import NO_SCORE, NmsRule, suppress_on_cpu

NMS_METHODS = ('gaussian', 'hard')
NEG_INF = float('-inf')


class Candidates(NamedTuple):
    """What NMS reads in each round.

    Attributes:
        top_left: ``(B, 2, K)`` float32 x1 and y1 in pixels, contiguous: each round reads all.
        bottom_right: ``(B, 2, K)`` x2 and y2, likewise. Two tensors without common memory, which
            loops of graphs do not take.
        areas: ``(B, K)``.
        labels: ``(B, K)`` int64 classes.
    """

    top_left: Tensor
    bottom_right: Tensor
    areas: Tensor
    labels: Tensor


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
    keep, kept = suppress(
        boxes, scores, labels, method, iou_thr, sigma, score_thr, max_per_img, class_wise
    )
    return keep, torch.where(kept > NO_SCORE, kept, NEG_INF)


def suppress(
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
    """:func:`batched_nms` with ``-1`` as the score of unused rows: the form for graphs.

    Scores of -1 or lower are padding, also without a threshold.

    Raises:
        ConfigError: unknown method.
    """
    check_nms_method(method)
    rule = NmsRule(method, iou_thr, sigma, score_thr, class_wise)
    boxes = boxes.float()
    scores = torch.where(scores > max(score_thr, NO_SCORE), scores.float(), NO_SCORE)
    batch, num = scores.shape
    if num == 0:  # max of an empty dimension is an error
        keep = labels.new_zeros((batch, max_per_img), dtype=torch.long)
        return keep, scores.new_full((batch, max_per_img), NO_SCORE)
    run = suppress_on_cpu if is_eager_cpu(scores) else suppress_in_rounds
    return run(boxes, scores, labels, rule, max_per_img)


def suppress_in_rounds(
    boxes: Tensor, scores: Tensor, labels: Tensor, rule: NmsRule, rounds: int
) -> tuple[Tensor, Tensor]:
    """The rounds for any device and for graphs; see :func:`suppress_on_cpu`."""
    top_left, bottom_right = (
        x.transpose(1, 2).clone(memory_format=torch.contiguous_format) for x in boxes.split(2, -1)
    )
    candidates = Candidates(top_left, bottom_right, box_area(boxes), labels)
    loop = _graph_loop if is_exporting() else _eager_loop
    keep, kept = loop(scores, candidates, rule, rounds)
    return torch.where(kept > NO_SCORE, keep, 0), kept


def nms_step(
    scores: Tensor, candidates: Candidates, rule: NmsRule
) -> tuple[Tensor, Tensor, Tensor]:
    """One round: take the best candidate of every image, lower the scores of its neighbours.

    Args:
        scores: ``(B, K)`` float32 current scores; -1 for suppressed and taken ones.
        candidates: see :class:`Candidates`.
        rule: see :class:`NmsRule`.

    Returns:
        Index ``(B, 1)`` and score ``(B, 1)`` of the best (any index and -1 where none is left),
        and the new scores ``(B, K)``. Nothing is written in place.
    """
    top_left, bottom_right, areas, labels = candidates
    best_score, best = scores.max(dim=1, keepdim=True)  # the first on ties
    both = best.unsqueeze(1).expand(-1, 2, -1)  # (B, 2, 1)
    corners = top_left.gather(2, both), bottom_right.gather(2, both)
    iou = one_to_many_iou(*corners, areas.gather(1, best), top_left, bottom_right, areas)
    if rule.class_wise:
        iou = torch.where(labels == labels.gather(1, best), iou, 0.0)
    if rule.method == 'hard':
        scores = torch.where(iou > rule.iou_thr, NO_SCORE, scores)
    else:
        decayed = scores * torch.exp(iou * iou / -rule.sigma)
        # The threshold applies to decayed scores, as in TensorFlow.
        is_left = decayed > rule.score_thr
        if rule.score_thr < 0:  # then decay would lift a suppressed one above the threshold
            is_left = is_left & (scores > NO_SCORE)
        scores = torch.where(is_left, decayed, NO_SCORE)
    # A kept box must not be taken again: decay does not remove it, nor does the IoU threshold
    # remove a box without area, whose IoU with itself is 0.
    return best, best_score, scores.scatter_(1, best, NO_SCORE)  # of the new tensor


def _eager_loop(
    scores: Tensor, candidates: Candidates, rule: NmsRule, rounds: int
) -> tuple[Tensor, Tensor]:
    batch = scores.shape[0]
    keep = candidates.labels.new_zeros((batch, rounds), dtype=torch.long)
    kept = scores.new_full((batch, rounds), NO_SCORE)
    for number in range(rounds):
        best, best_score, scores = nms_step(scores, candidates, rule)
        # An image without candidates left takes some row with -1: no branch, so no device sync.
        keep[:, number : number + 1], kept[:, number : number + 1] = best, best_score
    return keep, kept


def _graph_loop(
    scores: Tensor, candidates: Candidates, rule: NmsRule, rounds: int
) -> tuple[Tensor, Tensor]:
    """The same as one operator ``while_loop``, which becomes ONNX's ``Loop``."""
    # Eager code must not come here: PyTorch would compile the loop at its first call.
    from torch._higher_order_ops.while_loop import while_loop

    slots = torch.arange(rounds, device=scores.device)

    def is_going(number: Tensor, going: Tensor, *_: Tensor) -> Tensor:
        return (number < rounds) & going

    def body(
        number: Tensor, going: Tensor, scores: Tensor, keep: Tensor, kept: Tensor
    ) -> tuple[Tensor, ...]:
        best, best_score, scores = nms_step(scores, candidates, rule)
        is_here = slots == number
        return (
            number + 1,
            (best_score > NO_SCORE).any(),
            scores,
            torch.where(is_here, best, keep),
            torch.where(is_here, best_score, kept),
        )

    start = (
        torch.zeros((), dtype=torch.long, device=scores.device),
        torch.ones((), dtype=torch.bool, device=scores.device),
        scores,
        candidates.labels.new_zeros((scores.shape[0], rounds), dtype=torch.long),
        scores.new_full((scores.shape[0], rounds), NO_SCORE),
    )
    *_, keep, kept = while_loop(is_going, body, start)
    return keep, kept


def is_eager_cpu(x: Tensor) -> bool:
    """Whether code may look at the values of a tensor: it waits for no device and is not traced."""
    return x.device.type == 'cpu' and not torch.compiler.is_compiling() and not is_exporting()


def is_exporting() -> bool:
    """Whether ``torch.export`` traces this code."""
    # Not in the oldest versions of PyTorch that this package runs with.
    return bool(getattr(torch.compiler, 'is_exporting', lambda: False)())
