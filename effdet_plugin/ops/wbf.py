"""Weighted boxes fusion: merge the boxes that several views or models predict for one object.

Source: Solovyev, Wang, Gabruseva, "Weighted boxes fusion", 2019; google/automl
efficientdet/tf2/wbf.py (the reference), whose numbers are reproduced. By default no class is left
out, where the reference leaves out the last one.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from effdet_plugin.errors import ConfigError
from effdet_plugin.ops.boxes import pairwise_iou

Array = NDArray[np.float64]
IOU_THR = 0.55  # as in the reference


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
    class whose average box has the highest IoU with it, or starts a new one. A cluster's box is the
    average of its ``n`` boxes, weighted by score; its score is their mean score, times
    ``min(1, n / num_models)``.

    Args:
        boxes: ``(N, 4)`` xyxy, computed in float64.
        scores: ``(N,)``, not negative.
        labels: ``(N,)`` integers.
        num_models: number of models or views that the detections come from.
        iou_thr: least IoU to join a cluster.
        labels_below: leave out labels of this value or more; None keeps all. The reference passes
            its ``num_classes`` here, but its labels start at 1, so that the last class is lost.

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
    """Clusters of one class: average boxes ``(M, 4)``, sums of scores, numbers of members."""
    # Sequential by definition: each detection is compared with averages that earlier ones changed.
    sums, means = np.zeros((len(boxes), 4)), np.zeros((len(boxes), 4))
    totals, counts = np.zeros(len(boxes)), np.zeros(len(boxes))
    used = 0
    for box, score in zip(boxes.astype(np.float64), scores.astype(np.float64), strict=True):
        iou = pairwise_iou(torch.from_numpy(means[:used]), torch.from_numpy(box[None]))[:, 0]
        best = int(iou.argmax()) if used else 0
        if not used or iou[best] < iou_thr:
            best, used = used, used + 1
        sums[best] += score * box
        totals[best] += score
        counts[best] += 1
        # Without any score there is no weighted average: the last box stands for it.
        means[best] = sums[best] / totals[best] if totals[best] else box
    return means[:used], totals[:used], counts[:used]
