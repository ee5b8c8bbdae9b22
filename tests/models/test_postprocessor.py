from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from effdet_plugin.errors import ConfigError
from effdet_plugin.models import DetectionPostProcessor
from effdet_plugin.models.postprocessor import Detections, top_pairs
from effdet_plugin.ops import anchor_boxes, decode_deltas

SIZE = (64, 64)
LEVELS = [8 * 8 * 9, 4 * 4 * 9]
ANCHORS = anchor_boxes(SIZE, 3, 4)


def raw(seed: int = 0, batch: int = 2, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, len(ANCHORS), classes, generator=generator) - 4
    return logits, 0.3 * torch.randn(batch, len(ANCHORS), 4, generator=generator)


def detect(seed: int = 0, **settings: Any) -> Detections:
    processor = DetectionPostProcessor(**settings)
    found: Detections = processor(*raw(seed), ANCHORS, SIZE, level_sizes=LEVELS)
    return found


@given(seed=st.integers(0, 2**31), k=st.integers(1, 80))
def test_top_pairs__equal_to_a_sort_of_all_pairs(seed: int, k: int) -> None:
    logits = torch.randn(2, 15, 5, generator=torch.Generator().manual_seed(seed))
    values, anchors, labels = top_pairs(logits, k)
    expected, flat = logits.flatten(1).sort(descending=True)
    number = min(k, 75)
    assert torch.equal(values, expected[:, :number])
    assert torch.equal(anchors * 5 + labels, flat[:, :number])


def test_detections__rows_beyond_the_number_are_empty() -> None:
    found = detect(score_thr=0.5, max_per_img=40)
    assert found.boxes.shape == (2, 40, 4)
    for image, number in enumerate(found.num.tolist()):
        assert 0 < number < 40
        assert (found.scores[image, :number] > 0.5).all()
        assert not found.scores[image, number:].any()
        assert not found.boxes[image, number:].any()
        assert (found.labels[image, number:] == -1).all()


def test_detections__come_from_their_anchors() -> None:
    logits, deltas = raw()
    found = detect(method='hard', iou_thr=1.0, class_wise=False, max_per_img=1)
    for image in range(2):
        best = logits[image].amax(-1).argmax()
        box = decode_deltas(ANCHORS[best], deltas[image, best])
        torch.testing.assert_close(found.boxes[image, 0], box)
        assert found.labels[image, 0] == logits[image, best].argmax()
        torch.testing.assert_close(found.scores[image, 0], logits[image].amax().sigmoid())


@pytest.mark.parametrize('clip', ['before', 'after'])
def test_clip__keeps_boxes_in_the_image(clip: str) -> None:
    limits = torch.tensor([64, 64, 64, 64])
    assert (detect(clip='none').boxes < 0).any()
    boxes = detect(clip=clip).boxes
    assert (boxes >= 0).all()
    assert (boxes <= limits).all()


def test_candidates_per_level__each_level_has_its_own() -> None:
    logits, _ = raw()
    scores, index, labels = DetectionPostProcessor(candidates_per_level=5).select(logits, LEVELS)
    assert scores.shape == index.shape == labels.shape == (2, 10)
    assert (index[:, :5] < LEVELS[0]).all()
    assert (index[:, 5:] >= LEVELS[0]).all()
    rows = torch.arange(2)[:, None]
    assert torch.equal(logits[rows, index, labels].sigmoid(), scores)
    with pytest.raises(ConfigError, match=r'candidates_per_level.*level_sizes'):
        DetectionPostProcessor(candidates_per_level=5).select(logits)


def test_candidates__one_class_an_anchor_or_all_pairs() -> None:
    logits, _ = raw()
    _, index, labels = DetectionPostProcessor(nms_pre=0).select(logits)
    assert torch.equal(index, torch.arange(len(ANCHORS)).expand(2, -1))
    assert torch.equal(labels, logits.argmax(-1))
    scores, _, _ = DetectionPostProcessor(nms_pre=10**9).select(logits)
    assert scores.shape == (2, logits[0].numel())


@pytest.mark.parametrize(
    ('settings', 'lowest'),
    [
        (dict(method='gaussian'), 0.001),
        (dict(method='gaussian', score_thr=0.0), 0.001),  # the reference's "0 or default"
        (dict(method='hard', score_thr=0.0), 0.0),
        (dict(method='hard'), float('-inf')),
        (dict(method='hard', score_thr=0.2), 0.2),
    ],
)
def test_score_thr__defaults(settings: dict[str, Any], lowest: float) -> None:
    assert DetectionPostProcessor(**settings).nms.keywords['score_thr'] == lowest


def test_class_wise__others_do_not_suppress() -> None:
    together, apart = detect(class_wise=False), detect(class_wise=True)
    assert together.scores[:, 20:].sum() < apart.scores[:, 20:].sum()


def test_low_precision__is_computed_in_float32() -> None:
    logits, deltas = (x.bfloat16() for x in raw())
    short = DetectionPostProcessor()(logits, deltas, ANCHORS, SIZE)
    wide = DetectionPostProcessor()(logits.float(), deltas.float(), ANCHORS, SIZE)
    assert all(torch.equal(a, b) for a, b in zip(short, wide, strict=True))
    assert short.boxes.dtype == torch.float32


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        (dict(method='linear'), r"method='linear'.*gaussian, hard"),
        (dict(clip='always'), r"clip='always'.*none.*before.*after"),
    ],
)
def test_constructor__refuses(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DetectionPostProcessor(**settings)
