"""Test-time augmentation: merge the detections of several views of an image."""

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
# Boxes of one object in two views differ by a few pixels only, so a high threshold merges them and
# keeps different objects that overlap less.
NMS_IOU_THR = 0.6


@MODELS.register_module()
class EfficientDetTTAModel(BaseTTAModel):
    """mmengine's TTA model around any detector, for the views that mmcv's ``TestTimeAug`` makes.

    Args:
        module: The detector; its predictions are in pixels of the original image.
        merge: ``'nms'`` keeps the best of overlapping boxes, ``'wbf'`` averages them.
        iou_thr: Boxes of one class with at least this IoU are the same object; None: 0.6 for
            ``'nms'``, 0.55 for ``'wbf'`` (as in google/automl efficientdet/tf2/wbf.py).
        max_per_img: Number of detections kept per image.

    Raises:
        ConfigError: ``merge`` is unknown.
    """

    def __init__(
        self,
        module: nn.Module | dict[str, object],
        merge: str = 'nms',
        iou_thr: float | None = None,
        max_per_img: int = 100,
    ) -> None:
        super().__init__(module)
        check_merge(merge)
        self.merge = merge
        self.iou_thr = iou_thr
        self.max_per_img = max_per_img

    @torch.no_grad()
    def merge_preds(
        self, data_samples_list: Sequence[Sequence[DetDataSample]]
    ) -> list[DetDataSample]:
        """Merge the views of each image into its first sample.

        Args:
            data_samples_list: The views of each image, with ``flip`` and ``flip_direction`` in
                their metainfo.
        """
        merged = []
        for views in data_samples_list:
            found = [unflip(view.pred_instances, view.metainfo) for view in views]
            views[0].pred_instances = merge_instances(
                found, self.merge, self.iou_thr, self.max_per_img
            )
            merged.append(views[0])
        return merged


def check_merge(merge: str) -> None:
    """Raise ConfigError for an unknown way of merging."""
    if merge not in MERGES:
        raise ConfigError(f'merge={merge!r} is unknown; choose one of {", ".join(MERGES)}')


def unflip(found: InstanceData, meta: dict[str, object]) -> InstanceData:
    """Return detections of a view in the coordinates of the original image.

    Args:
        found: ``bboxes`` ``(N, 4)`` xyxy in pixels of the flipped image.
        meta: ``flip``, ``flip_direction`` and ``ori_shape`` (height, width).

    Raises:
        ConfigError: The view was flipped, but not from left to right.
    """
    if not meta.get('flip'):
        return found
    if meta.get('flip_direction') != 'horizontal':
        raise ConfigError(
            f'flip_direction={meta.get("flip_direction")!r}: only horizontal is supported'
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
    iou_thr: float | None = None,
    max_per_img: int = 100,
) -> InstanceData:
    """Merge the detections of one image, class by class.

    Args:
        views: ``bboxes`` ``(N, 4)`` xyxy in the same coordinates, ``scores`` and ``labels``
            ``(N,)``.
        merge: See `EfficientDetTTAModel`.
        iou_thr: See `EfficientDetTTAModel`.
        max_per_img: See `EfficientDetTTAModel`.

    Returns:
        The same three, by descending score.
    """
    boxes = torch.cat([view.bboxes for view in views])
    scores = torch.cat([view.scores for view in views])
    labels = torch.cat([view.labels for view in views])
    order = scores.argsort(descending=True, stable=True)
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    if merge == 'wbf':
        threshold = IOU_THR if iou_thr is None else iou_thr
        boxes, scores, labels = _fused(boxes, scores, labels, len(views), threshold)
    else:
        threshold = NMS_IOU_THR if iou_thr is None else iou_thr
        keep = _kept(boxes, scores, labels, threshold, max_per_img)
        boxes, scores, labels = boxes[keep], scores[keep], labels[keep]
    best = slice(max_per_img)
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
    # Fusion is sequential, so it runs in numpy on the host. One copy for all columns, since each
    # copy waits for the device; float64 on the host only, since not every device has it.
    columns = torch.cat([boxes, scores[:, None], labels[:, None].to(boxes)], 1).cpu().double()
    table = columns.numpy()
    fused = fuse_boxes(table[:, :4], table[:, 4], table[:, 5].astype('int64'), num_views, iou)
    new_boxes, new_scores, new_labels = map(torch.from_numpy, fused)
    return (
        new_boxes.to(boxes.dtype).to(boxes.device),
        new_scores.to(scores.dtype).to(scores.device),
        new_labels.to(labels.dtype).to(labels.device),
    )
