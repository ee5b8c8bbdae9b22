"""Post-processing: from the logits and deltas of a batch to its detections.

Source: google/automl efficientdet/tf2/postprocess.py (the reference).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from effdet_plugin.errors import ConfigError
from effdet_plugin.ops.boxes import clip_boxes, decode_deltas, gather_rows
from effdet_plugin.ops.nms import (
    NEG_INF,
    check_nms_method,
    is_eager_cpu,
    is_exporting,
    suppress,
)
from effdet_plugin.ops.nms_cpu import NO_SCORE
from effdet_plugin.ops.top_pairs import Pairs, top_pairs, top_pairs_in_graph, top_pairs_on_cpu

# In the reference a score threshold of 0 means this for Gaussian NMS, no threshold for hard NMS.
GAUSSIAN_SCORE_THR = 0.001

# Candidates are found by their logits, which are compared with the logit of the score threshold
# less this. NMS compares the scores, and the sigmoid's rounding must not lose one.
LOGIT_MARGIN = 1e-3

# On a CPU this many candidates for each detection are tried first: they nearly always suffice, and
# cost a third of the reference's 5000.
FIRST_CANDIDATES = 10
_VECTOR = 64  # the sigmoid of the last few of a row may differ by a bit: it is none of the first

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
        classes: labels that can be detected; None: all. The others take no place among the
            candidates and the ``max_per_img``. Not for ``nms_pre=0`` and ``class_wise=False``,
            where classes suppress each other.

    Raises:
        ConfigError: unknown ``method`` or ``clip``; ``classes`` where they suppress each other.
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
        classes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_nms_method(method)
        if clip not in ('none', 'before', 'after'):
            raise ConfigError(f"clip={clip!r}; choose one of 'none', 'before', 'after'")
        if method == 'gaussian':
            score_thr = score_thr or GAUSSIAN_SCORE_THR
        self.classes = None if classes is None else sorted(set(classes))
        # A buffer is on the device already: a copy at each call would wait for it.
        chosen = None if self.classes is None else torch.tensor(self.classes)
        self.register_buffer('chosen', chosen, persistent=False)
        if classes is not None and not can_choose_classes(
            nms_pre, candidates_per_level, class_wise
        ):
            raise ConfigError(
                'postprocessor.classes: classes suppress each other with nms_pre=0 or '
                'class_wise=False; choose among the detections'
            )
        self.score_thr = NEG_INF if score_thr is None else score_thr
        self.nms_pre = nms_pre
        self.candidates_per_level = candidates_per_level
        self.clip = clip
        self.max_per_img = max_per_img
        self.nms = partial(
            suppress,
            method=method,
            iou_thr=iou_thr,
            sigma=sigma,
            score_thr=self.score_thr,
            max_per_img=max_per_img,
            class_wise=class_wise,
        )

    chosen: Tensor | None

    def forward(
        self,
        logits: Tensor | Sequence[Tensor],
        deltas: Tensor,
        anchors: Tensor,
        image_size: tuple[int, int],
        level_sizes: Sequence[int] | None = None,
        decode: Decode = decode_deltas,
    ) -> Detections:
        """Turn raw outputs into detections.

        Args:
            logits: ``(B, N, C)`` before the sigmoid, or those of each level ``(B, n_l, C)``, which
                are put together only where that is needed.
            deltas: ``(B, N, 4)``.
            anchors: ``(N, 4)`` xyxy.
            image_size: (height, width) of the network input, for clipping.
            level_sizes: number of anchors of each level, needed by ``candidates_per_level``.
            decode: anchors and deltas ``(B, K, 4)`` -> boxes.
        """
        first = -(-FIRST_CANDIDATES * self.max_per_img // _VECTOR) * _VECTOR
        if first < self.nms_pre and self.candidates_per_level is None and is_eager_cpu(deltas):
            found = self._detect(logits, deltas, anchors, image_size, level_sizes, decode, first)
            if found is not None:
                return found
        found = self._detect(logits, deltas, anchors, image_size, level_sizes, decode)
        assert found is not None
        return found

    def _detect(
        self,
        logits: Tensor | Sequence[Tensor],
        deltas: Tensor,
        anchors: Tensor,
        image_size: tuple[int, int],
        level_sizes: Sequence[int] | None,
        decode: Decode,
        first: int | None = None,
    ) -> Detections | None:
        """:meth:`forward`, of the ``first`` candidates only: None if others may be detected."""
        # What cannot be detected need not enter NMS.
        boxes, scores, labels = self.candidates(
            logits, deltas, anchors, level_sizes, decode, self.min_logit, first
        )
        if self.clip == 'before':
            boxes = clip_boxes(boxes, image_size)
        keep, kept = self.nms(boxes, scores, labels)
        # Scores only fall: the next candidates have at most the score of the last one here.
        if first and scores.shape[1] == first and not (kept[:, -1] > scores[:, -1]).all():
            return None
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
        logits: Tensor | Sequence[Tensor],
        deltas: Tensor,
        anchors: Tensor,
        level_sizes: Sequence[int] | None = None,
        decode: Decode = decode_deltas,
        min_logit: float = NEG_INF,
        number: int | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates of NMS: boxes ``(B, K, 4)``, scores ``(B, K)`` and labels ``(B, K)``.

        The arguments are those of :meth:`forward`; pairs that are not above ``min_logit`` are left
        out where that costs nothing. ``number`` replaces ``nms_pre``. Computed in float32 whatever
        the dtype.
        """
        levels = [logits] if isinstance(logits, Tensor) else logits
        scores, index, labels = self.select(
            [x.float() for x in levels], level_sizes, min_logit, number
        )
        # Only the selected rows are decoded, about a tenth of all.
        return decode(anchors[index], gather_rows(deltas.float(), index)), scores, labels

    def select(
        self,
        levels: Sequence[Tensor],
        level_sizes: Sequence[int] | None = None,
        min_logit: float = NEG_INF,
        number: int | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, anchor indices and labels of the candidates, each ``(B, K)``.

        Args:
            levels: logits ``(B, n_l, C)``, of each level or of all in one.
            level_sizes: see :meth:`forward`.
            min_logit: see :meth:`candidates`.
            number: likewise.

        Raises:
            ConfigError: ``candidates_per_level`` without ``level_sizes``.
        """
        if self.chosen is not None:
            levels = [logits.index_select(-1, self.chosen) for logits in levels]
        if self.candidates_per_level is not None:
            if level_sizes is None:
                raise ConfigError('candidates_per_level needs level_sizes')
            if len(levels) != len(level_sizes):
                levels = whole(levels).split(list(level_sizes), dim=1)
            # A graph gets one dynamic number, not one a level.
            limit = NEG_INF if is_exporting() else min_logit
            most = self.candidates_per_level
            tops = [best_pairs([level], most, limit) for level in levels]
            starts = accumulate([0, *level_sizes[:-1]])
            best = torch.cat([values for values, _, _ in tops], 1)
            # Indices count the anchors over all levels.
            index = torch.cat([i + start for (_, i, _), start in zip(tops, starts, strict=True)], 1)
            labels = torch.cat([classes for _, _, classes in tops], 1)
        elif self.nms_pre > 0:
            best, index, labels = best_pairs(levels, number or self.nms_pre, min_logit)
        else:
            best, labels = whole(levels).max(-1)
            index = torch.arange(best.shape[1], device=best.device).expand_as(labels)
        if self.chosen is not None:
            labels = self.chosen[labels]
        # Selected by logit: the sigmoid keeps the order, so it is computed for the selected only.
        return best.sigmoid(), index, labels

    @property
    def min_logit(self) -> float:
        """What is not above this cannot be detected: scores only fall."""
        if not 0 < self.score_thr < 1:
            return NEG_INF
        return math.log(self.score_thr / (1 - self.score_thr)) - LOGIT_MARGIN


def can_choose_classes(
    nms_pre: int = 5000, candidates_per_level: int | None = None, class_wise: bool = True, **_: Any
) -> bool:
    """Whether a post-processor's ``classes`` may be chosen before NMS without another result."""
    return class_wise and (nms_pre > 0 or candidates_per_level is not None)


def best_pairs(levels: Sequence[Tensor], k: int, min_logit: float) -> Pairs:
    """The best k pairs of logits ``(B, n_l, C)``; on a CPU and in graphs only those above a logit.

    Args:
        levels: of each level.
        k: highest number.
        min_logit: exclusive.
    """
    if is_eager_cpu(levels[0]):
        return top_pairs_on_cpu(levels, k, min_logit)
    logits = whole(levels)
    if is_exporting() and min_logit > NEG_INF:
        return top_pairs_in_graph(logits, k, min_logit)
    return top_pairs(logits, k)


def whole(levels: Sequence[Tensor]) -> Tensor:
    """Levels ``(B, n_l, C)`` put together; a single one as it is."""
    return torch.cat(list(levels), 1) if len(levels) > 1 else levels[0]
