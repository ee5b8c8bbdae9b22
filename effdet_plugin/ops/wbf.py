"""Weighted boxes fusion: one box out of the boxes that several views or models give for an object.

Source: Solovyev, Wang, Gabruseva, "Weighted boxes fusion", 2019; google/automl ``wbf.py``, which is
reproduced number for number but for its loss of the last class.
"""

import numpy as np
from numpy.typing import NDArray

from effdet_plugin.errors import ConfigError

Array = NDArray[np.float64]
IOU_THR = 0.55  # the reference's


def fuse_boxes(
    boxes: Array,
    scores: Array,
    labels: NDArray[np.int64],
    num_models: int,
    iou_thr: float = IOU_THR,
    labels_below: int | None = None,
) -> tuple[Array, Array, NDArray[np.int64]]:
    """Fuse detections of one image, class by class.

    In the order given (sort by descending score first), each detection joins the cluster of its
    class whose average box it overlaps most, or opens one. A cluster's box is the average of its
    boxes, weighted by score; its score is the mean score, times ``n / num_models`` when its ``n``
    members are fewer than the models.

    Args:
        boxes: ``(N, 4)`` xyxy.
        scores: ``(N,)``, positive.
        labels: ``(N,)`` integers.
        num_models: how many models or views the detections come from.
        iou_thr: least IoU to join a cluster.
        labels_below: leave out labels from this one on, as the reference does with its
            ``num_classes``: its labels begin at 1, so that the last class is lost. None keeps all.

    Returns:
        Fused boxes ``(M, 4)``, scores ``(M,)`` in descending order, and labels ``(M,)``.

    Raises:
        ConfigError: ``num_models`` below 1.
    """
    if num_models < 1:
        raise ConfigError(f'num_models={num_models}: detections come from at least one model')
    names = [label for label in np.unique(labels) if labels_below is None or label < labels_below]
    if not names:
        return np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
    clusters = [_fuse_class(boxes[labels == n], scores[labels == n], iou_thr) for n in names]
    means, totals, counts = (np.concatenate(parts) for parts in zip(*clusters, strict=True))
    result = totals / counts * np.minimum(1, counts / num_models)
    fused_labels = np.repeat(names, [len(cluster[0]) for cluster in clusters])
    order = np.argsort(-result, kind='stable')
    return means[order], result[order], fused_labels[order].astype(np.int64)


def _fuse_class(boxes: Array, scores: Array, iou_thr: float) -> tuple[Array, Array, Array]:
    """Clusters of one class: average boxes ``(M, 4)``, sums of scores, and numbers of members."""
    sums, means = np.zeros((len(boxes), 4)), np.zeros((len(boxes), 4))
    totals, counts = np.zeros(len(boxes)), np.zeros(len(boxes))
    used = 0
    for box, score in zip(boxes.astype(np.float64), scores.astype(np.float64), strict=True):
        iou = _iou(means[:used], box)
        best = int(iou.argmax()) if used else 0
        if not used or iou[best] < iou_thr:
            best, used = used, used + 1
        sums[best] += score * box
        totals[best] += score
        counts[best] += 1
        means[best] = sums[best] / totals[best] if totals[best] else box
    return means[:used], totals[:used], counts[:used]


def _iou(boxes: Array, box: Array) -> Array:
    """IoU of ``(M, 4)`` with one box; 0 where neither has an area."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    inter = np.maximum(sides, 0).prod(1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
