"""Test-time augmentation: the detections of several views of a picture, merged to one list."""

from collections.abc import Sequence

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData
from torch import Tensor, nn

from effdet_plugin.errors import ConfigError
from effdet_plugin.ops.nms import NEG_INF, batched_nms
from effdet_plugin.ops.wbf import IOU_THR, fuse_boxes

MERGES = ('nms', 'wbf')
# Views differ by few pixels; of two objects that overlap this much one would be lost.
NMS_IOU = 0.6


@MODELS.register_module()
class MergedViews(BaseTTAModel):
    """A detector that is given several views of each picture, as mmcv's ``TestTimeAug`` makes them.

    Args:
        module: The detector; its predictions are in pixels of the original picture.
        merge: ``'nms'`` keeps the best of overlapping boxes, ``'wbf'`` averages them.
        iou_threshold: From which IoU on boxes of a class are the same object; None: 0.6 for
            ``'nms'``, 0.55 (the reference's) for ``'wbf'``.
        max_per_image: Detections of a picture.

    Raises:
        ConfigError: Unknown ``merge``.
    """

    def __init__(
        self,
        module: nn.Module | dict[str, object],
        merge: str = 'nms',
        iou_threshold: float | None = None,
        max_per_image: int = 100,
    ) -> None:
        super().__init__(module)
        check_merge(merge)
        self.merge = merge
        self.iou_threshold = iou_threshold
        self.max_per_image = max_per_image

    @torch.no_grad()
    def merge_preds(
        self, data_samples_list: Sequence[Sequence[DetDataSample]]
    ) -> list[DetDataSample]:
        """Merge the views of each picture into its first sample.

        Args:
            data_samples_list: For each picture its views, with ``flip`` and ``flip_direction``
                among their metas.
        """
        merged = []
        for views in data_samples_list:
            found = [unflip(view.pred_instances, view.metainfo) for view in views]
            views[0].pred_instances = merge_instances(
                found, self.merge, self.iou_threshold, self.max_per_image
            )
            merged.append(views[0])
        return merged


def check_merge(merge: str) -> None:
    """Refuse an unknown way of merging.

    Raises:
        ConfigError: It is unknown.
    """
    if merge not in MERGES:
        raise ConfigError(f'merge={merge!r} is unknown; choose one of {", ".join(MERGES)}')


def unflip(found: InstanceData, meta: dict[str, object]) -> InstanceData:
    """Return detections of a view in the frame of the original picture.

    Args:
        found: ``bboxes`` ``(N, 4)`` xyxy in pixels of the picture as it was flipped.
        meta: ``flip`` and ``ori_shape`` (height, width); views are flipped left to right only.
    """
    if not meta.get('flip'):
        return found
    if meta.get('flip_direction') != 'horizontal':
        raise ConfigError(
            f'flip_direction={meta.get("flip_direction")!r}: only horizontal is known'
        )
    width = meta['ori_shape'][1]  # type: ignore[index]
    x1, y1, x2, y2 = found.bboxes.unbind(-1)
    return InstanceData(
        bboxes=torch.stack([width - x2, y1, width - x1, y2], -1),
        scores=found.scores,
        labels=found.labels,
    )


def merge_instances(
    views: Sequence[InstanceData],
    merge: str = 'nms',
    iou_threshold: float | None = None,
    max_per_image: int = 100,
) -> InstanceData:
    """Merge detections of one picture, class by class.

    Args:
        views: ``bboxes`` ``(N, 4)`` xyxy in one frame, ``scores`` ``(N,)``, ``labels`` ``(N,)``.
        merge: See `MergedViews`.
        iou_threshold: See `MergedViews`.
        max_per_image: See `MergedViews`.

    Returns:
        The same three, by descending score.
    """
    boxes = torch.cat([view.bboxes for view in views])
    scores = torch.cat([view.scores for view in views])
    labels = torch.cat([view.labels for view in views])
    order = scores.argsort(descending=True, stable=True)
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    if merge == 'wbf':
        threshold = IOU_THR if iou_threshold is None else iou_threshold
        boxes, scores, labels = _fused(boxes, scores, labels, len(views), threshold)
    else:
        threshold = NMS_IOU if iou_threshold is None else iou_threshold
        keep = _kept(boxes, scores, labels, threshold, max_per_image)
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
    best = slice(max_per_image)
    return InstanceData(bboxes=boxes[best], scores=scores[best], labels=labels[best])


def _kept(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float, number: int) -> Tensor:
    keep, kept_scores = batched_nms(
        boxes[None],
        scores[None],
        labels[None],
        method='hard',
        iou_thr=iou,
        score_thr=NEG_INF,
        max_per_img=min(number, len(boxes)),
    )
    return keep[0][kept_scores[0] != NEG_INF]


def _fused(
    boxes: Tensor, scores: Tensor, labels: Tensor, num_views: int, iou: float
) -> tuple[Tensor, Tensor, Tensor]:
    # Fusion is sequential, so it is numpy's. One copy, since each makes the host wait; float64 on
    # the host only, since not every device has it.
    columns = torch.cat([boxes, scores[:, None], labels[:, None].to(boxes)], 1).cpu().double()
    table = columns.numpy()
    fused = fuse_boxes(table[:, :4], table[:, 4], table[:, 5].astype('int64'), num_views, iou)
    new_boxes, new_scores, new_labels = map(torch.from_numpy, fused)
    return (
        new_boxes.to(boxes.dtype).to(boxes.device),
        new_scores.to(scores.dtype).to(scores.device),
        new_labels.to(labels.dtype).to(labels.device),
    )
