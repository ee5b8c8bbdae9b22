"""Post-processing: from the logits and deltas of a batch to its detections.

Source: google/automl efficientdet/tf2/postprocess.py (the reference).
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from effdet_plugin.errors import ConfigError
from effdet_plugin.ops.boxes import clip_boxes, decode_deltas, gather_rows
from effdet_plugin.ops.nms import NEG_INF, NO_SCORE, check_nms_method, suppress

# In the reference a score threshold of 0 means this for Gaussian NMS, no threshold for hard NMS.
GAUSSIAN_SCORE_THR = 0.001

Decode = Callable[[Tensor, Tensor], Tensor]


class Detections(NamedTuple):
    """Detections of a batch, by descending score, padded to a fixed number of rows.

    Attributes:
        boxes: ``(B, M, 4)`` xyxy in pixels of the network input; 0 in padding.
        scores: ``(B, M)`` float32 in 0..1; 0 in padding.
        labels: ``(B, M)`` int64 in ``0 .. C-1``; -1 in padding.
        num: ``(B,)`` int64 number of real rows.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    num: Tensor


@MODELS.register_module()
class DetectionPostProcessor(nn.Module):
    """Select candidates, decode their boxes, apply NMS: for a whole batch, without a device sync.

    The default is the reference's evaluation: the best 5000 (anchor, class) pairs over all levels,
    Gaussian soft-NMS class by class, no clipping. Its deployment form is ``nms_pre=0,
    class_wise=False, clip='after'``; mmdet's usual form is ``candidates_per_level=1000,
    method='hard', clip='before'``.

    Args:
        nms_pre: number of best (anchor, class) pairs over all levels that enter NMS; 0: every
            anchor enters with its best class.
        candidates_per_level: number of best pairs of each level, in place of ``nms_pre``.
        method: ``'gaussian'`` or ``'hard'``.
        iou_thr: IoU threshold of hard NMS; Gaussian NMS has none.
        sigma: width of Gaussian NMS.
        score_thr: scores must be above it; None: 0.001 for Gaussian, none for hard NMS.
        max_per_img: number of detections per image.
        class_wise: boxes of different classes do not suppress each other.
        clip: ``'none'``, ``'before'`` or ``'after'`` NMS, to the network input.

    Raises:
        ConfigError: unknown ``method`` or ``clip``.
    """

    def __init__(
        self,
        nms_pre: int = 5000,
        candidates_per_level: int | None = None,
        method: str = 'gaussian',
        iou_thr: float = 0.5,
        sigma: float = 0.5,
        score_thr: float | None = None,
        max_per_img: int = 100,
        class_wise: bool = True,
        clip: str = 'none',
    ) -> None:
        super().__init__()
        check_nms_method(method)
        if clip not in ('none', 'before', 'after'):
            raise ConfigError(f"clip={clip!r}; choose one of 'none', 'before', 'after'")
        if method == 'gaussian':
            score_thr = score_thr or GAUSSIAN_SCORE_THR
        self.nms_pre = nms_pre
        self.candidates_per_level = candidates_per_level
        self.clip = clip
        self.nms = partial(
            suppress,
            method=method,
            iou_thr=iou_thr,
            sigma=sigma,
            score_thr=NEG_INF if score_thr is None else score_thr,
            max_per_img=max_per_img,
            class_wise=class_wise,
        )

    def forward(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        image_size: tuple[int, int],
        level_sizes: Sequence[int] | None = None,
        decode: Decode = decode_deltas,
    ) -> Detections:
        """Turn raw outputs into detections.

        Args:
            logits: ``(B, N, C)`` before the sigmoid.
            deltas: ``(B, N, 4)``.
            anchors: ``(N, 4)`` xyxy.
            image_size: (height, width) of the network input, for clipping.
            level_sizes: number of anchors of each level, needed by ``candidates_per_level``.
            decode: anchors and deltas ``(B, K, 4)`` -> boxes.
        """
        boxes, scores, labels = self.candidates(logits, deltas, anchors, level_sizes, decode)
        if self.clip == 'before':
            boxes = clip_boxes(boxes, image_size)
        keep, kept = self.nms(boxes, scores, labels)
        boxes = gather_rows(boxes, keep)
        if self.clip == 'after':
            boxes = clip_boxes(boxes, image_size)
        # A fixed number of rows with a count: results stay on the device until they are read.
        real = kept > NO_SCORE
        return Detections(
            torch.where(real.unsqueeze(-1), boxes, 0.0),
            torch.where(real, kept, 0.0),
            torch.where(real, labels.gather(1, keep), -1),
            real.sum(1),
        )

    def candidates(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        level_sizes: Sequence[int] | None = None,
        decode: Decode = decode_deltas,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates of NMS: boxes ``(B, K, 4)``, scores ``(B, K)`` and labels ``(B, K)``.

        The arguments are those of :meth:`forward`. Computed in float32 whatever the dtype.
        """
        scores, index, labels = self.select(logits.float(), level_sizes)
        # Only the selected rows are decoded, about a tenth of all.
        return decode(anchors[index], gather_rows(deltas.float(), index)), scores, labels

    def select(
        self, logits: Tensor, level_sizes: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, anchor indices and labels of the candidates, each ``(B, K)``.

        Raises:
            ConfigError: ``candidates_per_level`` without ``level_sizes``.
        """
        if self.candidates_per_level is not None:
            if level_sizes is None:
                raise ConfigError('candidates_per_level needs level_sizes')
            levels = logits.split(list(level_sizes), dim=1)
            tops = [top_pairs(level, self.candidates_per_level) for level in levels]
            starts = accumulate([0, *level_sizes[:-1]])
            best = torch.cat([values for values, _, _ in tops], 1)
            # Indices count the anchors over all levels.
            index = torch.cat([i + start for (_, i, _), start in zip(tops, starts, strict=True)], 1)
            labels = torch.cat([classes for _, _, classes in tops], 1)
        elif self.nms_pre > 0:
            best, index, labels = top_pairs(logits, self.nms_pre)
        else:
            best, labels = logits.max(-1)
            index = torch.arange(logits.shape[1], device=logits.device).expand_as(labels)
        # Selected by logit: the sigmoid keeps the order, so it is computed for the selected only.
        return best.sigmoid(), index, labels


def top_pairs(logits: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Best (anchor, class) pairs of ``(B, N, C)`` logits: values, anchors, classes ``(B, k)``.

    The best k pairs are on the k anchors whose best class is highest, so one large sort over all
    pairs is replaced by a sort over anchors and one over ``k * C`` values.
    """
    num_anchors, num_classes = logits.shape[1:]
    if num_anchors > k:
        _, anchors = logits.amax(-1).topk(k, dim=1)  # (B, k)
        logits = gather_rows(logits, anchors)  # (B, k, C)
    values, flat = logits.flatten(1).topk(min(k, logits[0].numel()), dim=1)
    rows, labels = flat.div(num_classes, rounding_mode='floor'), flat % num_classes
    return values, anchors.gather(1, rows) if num_anchors > k else rows, labels
