"""Time post-processing alone, from the head's maps to detections, beside effdet's.

The maps are made up: of a scene with objects, whose anchors agree as a trained network's do, and
flat ones of a network that has learned nothing. They are in channels-last order, as the network of
our inference gives them, so that neither side has to copy all logits to sort them. Neither has a
score threshold beyond the reference's 0.001 of Gaussian NMS: the best 5,000 pairs of anchor and
class enter NMS.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from effdet_plugin.benchmark.machine import describe
from effdet_plugin.benchmark.report import Measure, Report
from effdet_plugin.benchmark.settings import Settings
from effdet_plugin.benchmark.subjects import label_of
from effdet_plugin.benchmark.timing import TOTAL, Stopwatch, in_turns
from effdet_plugin.benchmark.train_worker import random_boxes, size_of
from effdet_plugin.errors import ConfigError
from effdet_plugin.models.postprocessor import DetectionPostProcessor
from effdet_plugin.ops.boxes import pairwise_iou
from effdet_plugin.trained_model import device_of, load_trained

# Logits of anchors that see nothing, as of a trained Lite0 on scenes: N(-7, 1) gives 0.002 % of the
# pairs a score above 0.05. An object adds up to 9 to its own class, in proportion to the IoU.
BACKGROUND, SPREAD, PEAK = -7.0, 1.0, 9.0
MIN_IOU = 0.4  # of anchors that see an object
FLAT = -4.6  # of the reference's first step
SHOWN_SCORE = 0.05
# Of the 100 best scores. Both compute in float32, in another order.
MAX_DIFFERENCE = 1e-4


@dataclass
class Maps:
    """Outputs of a head.

    Attributes:
        logits: Of each level, ``(B, A * C, h, w)``.
        deltas: Likewise ``(B, A * 4, h, w)``, (tx, ty, tw, th).
        share: Share of the pairs of anchor and class whose score is above `SHOWN_SCORE`.
    """

    logits: list[Tensor]
    deltas: list[Tensor]
    share: float


def measure(settings: Settings, tell: Callable[[str], None]) -> Report:
    """Measure.

    Args:
        settings: ``nms``, ``batches`` and ``against`` matter; the model gives levels, anchors and
            classes, its weights are not used.
        tell: Told what is being done.

    Raises:
        ConfigError: The head has no post-processing of ours, or effdet finds something else.
    """
    settings.check()
    device = device_of(settings.device)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    trained = load_trained(
        settings.config,
        settings.models[0],
        device,
        image_size=settings.image_size,
        options=settings.options,
    )
    head, size = trained.model.bbox_head, size_of(trained)
    if not hasattr(head, 'postprocessor'):
        raise ConfigError(f'bbox_head: {type(head).__name__} has no post-processor that is ours')
    report = Report(describe(device, torch.get_num_threads()), [])
    for batch in settings.batches:
        for kind, make in (('objects', with_objects), ('flat', flat)):
            maps = make(head, size, batch)
            prefix = f'postprocess/b{batch}/{label_of(settings.models[0], settings)} {kind},'
            calls = {f'{prefix} {m} NMS': partial(ours(head, size, m), maps) for m in settings.nms}
            rivals = _rivals(head, size, maps, settings, prefix)
            _compare(calls, rivals, kind)
            found = in_turns({**calls, **rivals}, settings.rounds, device, warm_up=1, report=tell)
            note = f'{maps.share:.3%} of the pairs above {SHOWN_SCORE}'
            for name in [*calls, *rivals]:
                against = f'{name}, effdet' if f'{name}, effdet' in rivals else ''
                report.measures.append(Measure(name, found[name][TOTAL], batch, against, note))
    if settings.against and 'hard' in settings.nms and not _has_hard_nms():
        from effdet_plugin.benchmark.effdet_rival import NO_NMS

        report.notes.append(NO_NMS)
    return report


def with_objects(head: Any, size: tuple[int, int], batch: int, seed: int = 0) -> Maps:
    """Make maps of images with eight objects each.

    Args:
        head: An `EfficientDetHead`.
        size: (height, width) of the input.
        batch: Number of images.
        seed: Of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes, anchors = _anchors(head, size)
    boxes, labels = random_boxes(batch, size, head.num_classes, generator)
    logits = torch.empty(batch, len(anchors), head.num_classes)
    logits.normal_(BACKGROUND, SPREAD, generator=generator)
    deltas = torch.empty(batch, len(anchors), 4).normal_(0, 0.1, generator=generator)
    for image in range(batch):
        overlap, nearest = pairwise_iou(anchors, boxes[image]).max(1)
        seen = (overlap > MIN_IOU).nonzero().squeeze(1)
        own = nearest[seen]
        logits[image, seen, labels[image, own]] += PEAK * overlap[seen]
        # What is left over is how much a network's boxes of one object differ.
        deltas[image, seen] += head.bbox_coder.encode(anchors[seen], boxes[image, own])
    return _as_maps(head, logits, deltas, sizes)


def flat(head: Any, size: tuple[int, int], batch: int, seed: int = 0) -> Maps:
    """Make maps of a network before its first step: all scores are nearly 0.01."""
    generator = torch.Generator().manual_seed(seed)
    sizes, anchors = _anchors(head, size)
    logits = torch.empty(batch, len(anchors), head.num_classes)
    logits.normal_(FLAT, 0.01, generator=generator)
    deltas = torch.empty(batch, len(anchors), 4).normal_(0, 0.1, generator=generator)
    return _as_maps(head, logits, deltas, sizes)


def ours(
    head: Any, size: tuple[int, int], method: str
) -> Callable[[Maps, Stopwatch | None], list[Tensor]]:
    """Return our post-processing: maps to the scores of each image, by descending score."""
    post = DetectionPostProcessor(method=method).to(next(head.parameters()).device)
    metas = {'batch_input_shape': size, 'scale_factor': (1.0, 1.0)}

    def call(maps: Maps, _watch: Stopwatch | None = None) -> list[Tensor]:
        before, head.postprocessor = head.postprocessor, post
        try:
            found = head.predict_by_feat(
                maps.logits, maps.deltas, batch_img_metas=[metas] * len(maps.logits[0])
            )
        finally:
            head.postprocessor = before
        return [image.scores for image in found]

    return call


def rival(
    head: Any, size: tuple[int, int], method: str
) -> Callable[[Maps, Stopwatch | None], list[Tensor]]:
    """Return effdet's post-processing: maps, with its order of deltas, to scores likewise."""
    from effdet.bench import _batch_detection, _post_process

    sizes, anchors = _anchors(head, size)
    device = next(head.parameters()).device
    anchors = anchors[:, [1, 0, 3, 2]].to(device)

    def call(maps: Maps, _watch: Stopwatch | None = None) -> list[Tensor]:
        logits, deltas, indices, classes = _post_process(
            maps.logits, maps.deltas, len(sizes), head.num_classes, 5000
        )
        found = _batch_detection(
            len(logits), logits, deltas, anchors, indices, classes, soft_nms=method == 'gaussian'
        )
        return list(found[..., 4])

    return call


def _rivals(
    head: Any, size: tuple[int, int], maps: Maps, settings: Settings, prefix: str
) -> dict[str, Callable[[Stopwatch], Any]]:
    """Return effdet's calls, by the name of ours that each is compared with."""
    if not settings.against:
        return {}
    turned = Maps(maps.logits, [_turned(x, head.num_anchors) for x in maps.deltas], maps.share)
    able = [m for m in settings.nms if m != 'hard' or _has_hard_nms()]
    return {f'{prefix} {m} NMS, effdet': partial(rival(head, size, m), turned) for m in able}


def _compare(calls: dict[str, Any], rivals: dict[str, Any], kind: str) -> None:
    """Refuse to time things that do not find the same.

    Of flat maps only one score is compared: which of thousands of equal ones enter NMS is chance.
    """
    for name, call in calls.items():
        theirs = rivals.get(f'{name}, effdet')
        if theirs is None:
            continue
        for own, other in zip(call(None), theirs(None), strict=True):
            count = min(len(own), len(other)) if kind == 'objects' else 1
            error = float((own[:count] - other[:count]).abs().max())
            if not error <= MAX_DIFFERENCE:
                raise ConfigError(f"{name}: effdet's scores differ by {error:.2g}")


def _has_hard_nms() -> bool:
    from effdet_plugin.benchmark.effdet_rival import compiled_nms_works

    return compiled_nms_works()


def _anchors(head: Any, size: tuple[int, int]) -> tuple[list[tuple[int, int]], Tensor]:
    """Return (height, width) of each level's map, and the anchors ``(N, 4)`` xyxy on the CPU."""
    strides = [2 ** (3 + level) for level in range(head.num_levels)]
    sizes = [(-(-size[0] // s), -(-size[1] // s)) for s in strides]
    maps = [torch.empty(1, 1, *shape) for shape in sizes]
    return sizes, torch.cat(head.anchors(maps, size))


def _as_maps(head: Any, logits: Tensor, deltas: Tensor, sizes: Sequence[tuple[int, int]]) -> Maps:
    device = next(head.parameters()).device
    counts = [height * width * head.num_anchors for height, width in sizes]

    def levels(values: Tensor) -> list[Tensor]:
        return [
            part.reshape(len(values), *shape, -1).permute(0, 3, 1, 2).to(device)
            for part, shape in zip(values.split(counts, 1), sizes, strict=True)
        ]

    share = float((logits.sigmoid() > SHOWN_SCORE).float().mean())
    return Maps(levels(logits), levels(deltas), share)


def _turned(deltas: Tensor, num_anchors: int) -> Tensor:
    """``(B, A * 4, h, w)`` of (tx, ty, tw, th) -> (ty, tx, th, tw), as effdet has them."""
    return deltas.unflatten(1, (num_anchors, 4))[:, :, [1, 0, 3, 2]].flatten(1, 2)
