"""The rounds of NMS on a CPU, equal to the bit to those of :mod:`effdet_plugin.ops.nms`.

A round is a dozen operators on a few thousand numbers. PyTorch takes longer to start each than to
compute it; numpy starts them in a tenth of the time, and IEEE arithmetic gives the same bits. Only
the exponential, which is no IEEE operation, is PyTorch's.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]

# Score of what is suppressed, and of unused rows. Probabilities are above it. Minus infinity would
# do in PyTorch, but OpenVINO returns such rows as detections.
NO_SCORE = -1.0


class NmsRule(NamedTuple):
    """What suppresses what; see :func:`effdet_plugin.ops.nms.batched_nms`."""

    method: str = 'gaussian'
    iou_thr: float = 0.5
    sigma: float = 0.5
    score_thr: float = 0.001
    class_wise: bool = True


def suppress_on_cpu(
    boxes: Tensor, scores: Tensor, labels: Tensor, rule: NmsRule, rounds: int
) -> tuple[Tensor, Tensor]:
    """Suppress the candidates of each image, until it has none left.

    Args:
        boxes: ``(B, K, 4)`` float32 xyxy in pixels, on the CPU.
        scores: ``(B, K)`` float32; -1 where there is no candidate.
        labels: ``(B, K)`` int64.
        rule: What suppresses what.
        rounds: Number of rows of the results.

    Returns:
        Indices ``(B, rounds)`` int64 and scores ``(B, rounds)`` float32 of the kept candidates; 0
        and -1 in unused rows.
    """
    batch = scores.shape[0]
    keep = np.zeros((batch, rounds), np.int64)
    kept = np.full((batch, rounds), NO_SCORE, np.float32)
    arrays = (x.detach().numpy() for x in (boxes, scores, labels))
    # Damaged boxes, of infinite size or NaN, suppress nothing.
    with np.errstate(all='ignore'):
        for row, (one_boxes, one_scores, one_labels) in enumerate(zip(*arrays, strict=True)):
            image = _Image(one_boxes, one_scores, one_labels, rule)
            for number in range(rounds):
                best, score = image.take()
                if not score > NO_SCORE:
                    break
                keep[row, number], kept[row, number] = image.index[best], score
    return torch.from_numpy(keep), torch.from_numpy(kept)


class _Image:
    """The candidates of one image, those that can suppress each other side by side.

    Args:
        boxes: ``(K, 4)``.
        scores: ``(K,)``.
        labels: ``(K,)``.
        rule: What suppresses what.

    Attributes:
        index: Index of each candidate among the K.
    """

    def __init__(self, boxes: Array, scores: Array, labels: Array, rule: NmsRule) -> None:
        self.index = np.flatnonzero(scores > NO_SCORE)
        self._rule = rule
        self._scores = scores[self.index]
        labels = labels[self.index] if rule.class_wise else np.zeros_like(self.index)
        _, self._group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        self._order = np.argsort(self._group, kind='stable')  # candidates, group by group
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        x1, y1, x2, y2 = np.ascontiguousarray(boxes[self.index[self._order]].T)
        self._corners = x1, y1, x2, y2, (x2 - x1) * (y2 - y1)
        self._place = np.empty_like(self._order)  # of each candidate in that order
        self._place[self._order] = np.arange(len(self._order))

    def take(self) -> tuple[int, float]:
        """Take the best candidate and lower the scores of those that it overlaps.

        Returns:
            Its place among the candidates, and its score; a score of -1 if none is left.
        """
        if not len(self._scores):
            return 0, NO_SCORE
        best = int(self._scores.argmax())  # the first on ties
        score = float(self._scores[best])
        if score > NO_SCORE:
            group = self._group[best]
            start, end = self._starts[group], self._starts[group + 1]
            members = self._order[start:end]
            left = self._lowered(self._scores[members], self._iou(best, start, end))
            self._scores[members] = left
            self._scores[best] = NO_SCORE
        return best, score

    def _iou(self, best: int, start: int, end: int) -> Array:
        """IoU of a candidate with its group, as :func:`effdet_plugin.ops.boxes.one_to_many_iou`."""
        x1, y1, x2, y2, areas = (x[start:end] for x in self._corners)
        own = self._place[best] - start
        width = np.minimum(x2, x2[own])
        width -= np.maximum(x1, x1[own])
        inter = np.minimum(y2, y2[own])
        inter -= np.maximum(y1, y1[own])
        inter = np.maximum(inter, 0, out=inter) * np.maximum(width, 0, out=width)
        union = np.add(areas, areas[own], out=width)
        union -= inter
        iou = np.divide(inter, union, out=union)
        iou[~(inter > 0)] = 0.0
        return iou

    def _lowered(self, scores: Array, iou: Array) -> Array:
        """Scores ``(n,)`` after the suppression by a box of these IoU."""
        rule = self._rule
        if rule.method == 'hard':
            return np.where(iou > np.float32(rule.iou_thr), np.float32(NO_SCORE), scores)
        iou *= iou
        torch.exp_(torch.from_numpy(iou).div_(-rule.sigma))
        decayed = scores * iou
        is_left = (decayed > np.float32(rule.score_thr)) & (scores > NO_SCORE)
        return np.where(is_left, decayed, np.float32(NO_SCORE))
