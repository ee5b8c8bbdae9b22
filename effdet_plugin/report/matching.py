"""What each detection hit, what was missed, and at which score to cut: numpy only."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

MATCH_IOU = 0.5
_DIGITS = 3  # of a threshold


class Boxes(NamedTuple):
    """Boxes of one image.

    Args:
        boxes: (N, 4) xyxy in pixels of the image.
        labels: (N,) index into the classes.
        scores: (N,) of detections; of truth not used.
        ignored: (N,) bool, of truth: crowd regions, which nothing is expected to find.
    """

    boxes: Floats
    labels: Ints
    scores: Floats
    ignored: Flags

    @classmethod
    def none(cls) -> 'Boxes':
        """Return no boxes."""
        return cls(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, bool))

    def kept(self, which: Flags) -> 'Boxes':
        """Return some of them.

        Args:
            which: (N,) bool.
        """
        boxes, labels, scores, ignored = self
        return Boxes(boxes[which], labels[which], scores[which], ignored[which])


class Hits(NamedTuple):
    """How the detections of one image meet its truth.

    Args:
        truth_of: (D,) the object that each detection hit, -1 for none.
        is_ignored: (D,) bool, detections of a crowd region.
        is_missed: (G,) bool, objects that nothing hit.
    """

    truth_of: Ints
    is_ignored: Flags
    is_missed: Flags


def pairwise_iou(first: Floats, second: Floats, of_first: bool = False) -> Floats:
    """Return the IoU (N, M) of boxes (N, 4) and (M, 4), xyxy; 0 for boxes without area.

    Args:
        first: Boxes.
        second: Boxes.
        of_first: Divide by the area of ``first`` and not by that of the union.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(min=0).prod(axis=2)
    area, other = ((b[:, 2:] - b[:, :2]).clip(min=0).prod(axis=1) for b in (first, second))
    total = np.broadcast_to(area[:, None], shared.shape)
    if not of_first:
        total = total + other[None] - shared
    return np.divide(shared, total, out=np.zeros_like(shared), where=total > 0)


def match(found: Boxes, truth: Boxes, iou: float = MATCH_IOU) -> Hits:
    """Give each object to a detection: those of its class first, then those of other classes.

    Args:
        found: Detections, in any order; the best score chooses first.
        truth: Objects.
        iou: A detection hits an object from this IoU on.
    """
    overlap = pairwise_iou(found.boxes, truth.boxes)
    truth_of = np.full(len(found.boxes), -1, np.int64)
    is_free = ~truth.ignored
    order = np.argsort(-found.scores, kind='stable')
    same = found.labels[:, None] == truth.labels[None]
    for allowed in (same, ~same):
        for index in order[truth_of[order] < 0]:
            candidates = np.where(allowed[index] & is_free, overlap[index], -1.0)
            best = int(candidates.argmax()) if candidates.size else -1
            if best >= 0 and candidates[best] >= iou:
                truth_of[index] = best
                is_free[best] = False
    crowds = pairwise_iou(found.boxes, truth.boxes[truth.ignored], of_first=True)
    in_crowd = (crowds >= iou).any(axis=1) & (truth_of < 0)
    return Hits(truth_of, in_crowd, is_free)


def confusion_of(found: Boxes, truth: Boxes, hits: Hits, num_classes: int) -> Ints:
    """Return how often each class was taken for each, (C + 1, C + 1); the last is background.

    Rows are true classes, columns detected ones: the last column counts missed objects, the last
    row detections of nothing.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    counted = ~hits.is_ignored
    is_hit = (hits.truth_of >= 0) & counted
    rows = np.full(len(found.labels), num_classes, np.int64)
    rows[is_hit] = truth.labels[hits.truth_of[is_hit]]
    np.add.at(counts, (rows[counted], found.labels[counted]), 1)
    missed = truth.labels[hits.is_missed]
    np.add.at(counts, (missed, np.full_like(missed, num_classes)), 1)
    return counts


class Cut(NamedTuple):
    """A score threshold, and what it gives; all nan where there is no object.

    Args:
        threshold: Of the score, rounded down.
        f1: Harmonic mean of precision and recall.
        precision: Share of the detections that are right.
        recall: Share of the objects that are found.
    """

    threshold: float
    f1: float
    precision: float
    recall: float


def best_cut(scores: Floats, is_right: Flags, num_objects: int) -> Cut:
    """Return the threshold that gives the highest F1.

    Args:
        scores: (D,) of all detections, in any order.
        is_right: (D,) whether each hit an object of its class.
        num_objects: Objects there are.
    """
    nan = float('nan')
    if not num_objects:
        return Cut(nan, nan, nan, nan)
    if not len(scores):
        return Cut(nan, 0.0, nan, 0.0)
    order = np.argsort(-scores, kind='stable')
    ranked = scores[order]
    is_last = np.append(ranked[1:] < ranked[:-1], True)  # equal scores are kept or cut together
    f1 = 2 * np.cumsum(is_right[order]) / (np.arange(1, len(ranked) + 1) + num_objects)
    best = ranked[int(np.where(is_last, f1, -1).argmax())]
    threshold = float(np.floor(best * 10**_DIGITS) / 10**_DIGITS)
    return cut_at(scores, is_right, num_objects, threshold)


def cut_at(scores: Floats, is_right: Flags, num_objects: int, threshold: float) -> Cut:
    """Return what a threshold gives; see `best_cut`."""
    kept = scores >= threshold
    right, number = int(is_right[kept].sum()), int(kept.sum())
    precision = right / number if number else float('nan')
    return Cut(threshold, 2 * right / (number + num_objects), precision, right / num_objects)


class Calibration(NamedTuple):
    """How often detections of a score are right.

    Args:
        edges: (B + 1,) of the scores' bins.
        counts: (B,) detections.
        share_right: (B,) of them that hit an object of their class; nan where there is none.
        mean_score: (B,) likewise.
    """

    edges: Floats
    counts: Ints
    share_right: Floats
    mean_score: Floats

    @property
    def error(self) -> float:
        """The mean distance of score and share, by detections (the expected calibration error)."""
        if not self.counts.sum():
            return float('nan')
        distance = np.nan_to_num(np.abs(self.share_right - self.mean_score))
        return float((distance * self.counts).sum() / self.counts.sum())


def calibrate(scores: Floats, is_right: Flags, bins: int = 10) -> Calibration:
    """Sort detections into bins of equal width by their scores (D,)."""
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip((scores * bins).astype(np.int64), 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    right, total = (np.bincount(place, weights=w, minlength=bins) for w in (is_right, scores))
    with np.errstate(invalid='ignore'):
        return Calibration(edges, counts, right / counts, total / counts)
