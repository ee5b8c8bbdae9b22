from typing import Any

import pytest
import torch
from torch import Tensor

from effdet_plugin.errors import ConfigError
from effdet_plugin.models import DetectionPostProcessor, postprocessor
from effdet_plugin.models.postprocessor import Detections
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
    scores, index, labels = DetectionPostProcessor(candidates_per_level=5).select([logits], LEVELS)
    assert scores.shape == index.shape == labels.shape == (2, 10)
    assert (index[:, :5] < LEVELS[0]).all()
    assert (index[:, 5:] >= LEVELS[0]).all()
    rows = torch.arange(2)[:, None]
    assert torch.equal(logits[rows, index, labels].sigmoid(), scores)
    with pytest.raises(ConfigError, match=r'candidates_per_level.*level_sizes'):
        DetectionPostProcessor(candidates_per_level=5).select([logits])


def test_candidates__one_class_an_anchor_or_all_pairs() -> None:
    logits, _ = raw()
    _, index, labels = DetectionPostProcessor(nms_pre=0).select([logits])
    assert torch.equal(index, torch.arange(len(ANCHORS)).expand(2, -1))
    assert torch.equal(labels, logits.argmax(-1))
    scores, _, _ = DetectionPostProcessor(nms_pre=10**9).select([logits])
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


@pytest.mark.parametrize('method', ['hard', 'gaussian'])
@pytest.mark.parametrize('settings', [{}, dict(candidates_per_level=60), dict(nms_pre=50)])
def test_score_thr__detects_what_no_threshold_does(method: str, settings: dict[str, Any]) -> None:
    every = detect(method=method, **settings)
    some = detect(method=method, score_thr=0.3, **settings)
    for image, number in enumerate(some.num.tolist()):
        assert number == int((every.scores[image] > 0.3).sum()) > 3
        for one, other in zip(some[:3], every[:3], strict=True):
            found, expected = one[image, :number], other[image, :number]
            if one is some.scores:
                # AVX-512: torch's sigmoid of what follows the last whole vector rounds differently.
                torch.testing.assert_close(found, expected, rtol=2**-22, atol=0)
            else:
                assert torch.equal(found, expected)


def test_score_thr__few_candidates_enter_nms() -> None:
    logits, deltas = raw()
    processor = DetectionPostProcessor(score_thr=0.3)
    select = processor.select([logits], min_logit=processor.min_logit)
    most = int((logits.sigmoid() > 0.3).flatten(1).sum(1).max())
    assert most <= select[0].shape[1] <= most + 2  # the margin of rounding
    assert processor.candidates(logits, deltas, ANCHORS)[1].shape[1] > 2 * most
    assert processor(logits - 20, deltas, ANCHORS, SIZE).num.tolist() == [0, 0]


class Counting(DetectionPostProcessor):
    """Counts how often it looks for detections."""

    calls = 0

    def _detect(self, *args: Any) -> Detections | None:
        self.calls += 1
        return super()._detect(*args)


@pytest.mark.parametrize('method', ['hard', 'gaussian'])
@pytest.mark.parametrize(
    ('kind', 'expected'), [('apart', {1}), ('one place', {2}), ('ties', {1, 2})]
)
def test_first_candidates__the_result_is_that_of_all(
    method: str, kind: str, expected: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the best pairs lie on one another, the first ones are too few and all are tried."""
    counts = set()
    for seed in range(6):
        logits, _ = raw(seed)
        boxes = ANCHORS.expand(len(logits), -1, -1).clone()
        if kind == 'one place':
            logits[:, :400, 0] += 30
            boxes[:, :400] = torch.tensor([8.0, 8.0, 40.0, 40.0])
        elif kind == 'ties':
            logits = logits.round()

        def detect(inputs: tuple[Tensor, Tensor] = (logits, boxes)) -> tuple[Detections, int]:
            processor = Counting(method=method, max_per_img=20)
            return processor(*inputs, ANCHORS, SIZE, decode=lambda _, b: b), processor.calls

        found, calls = detect()
        counts.add(calls)
        with monkeypatch.context() as patch:
            patch.setattr(postprocessor, 'FIRST_CANDIDATES', 10**6)
            every, _ = detect()
        for own, other in zip(found, every, strict=True):
            assert torch.equal(own, other)
    assert counts <= expected


@pytest.mark.parametrize('method', ['hard', 'gaussian'])
@pytest.mark.parametrize('settings', [dict(nms_pre=10**6), dict(candidates_per_level=10**6)])
def test_classes__others_take_no_place(method: str, settings: dict[str, Any]) -> None:
    every = detect(method=method, max_per_img=900, **settings)
    chosen = detect(method=method, max_per_img=10, classes=[2, 0], **settings)
    for image in range(2):
        is_chosen = (every.labels[image] == 2) | (every.labels[image] == 0)
        assert is_chosen[:10].sum() < 10  # others are among the best
        for one, other in zip(chosen[:3], every[:3], strict=True):
            assert torch.equal(one[image], other[image][is_chosen][:10])


def test_classes__are_on_the_device_before_the_call() -> None:
    processor = DetectionPostProcessor(classes=[2, 0], nms_pre=5).to('meta')
    assert processor.chosen is not None
    assert processor.chosen.device.type == 'meta'
    assert not processor.state_dict()
    logits, deltas = (x.to('meta') for x in raw())
    # On this device nothing has values: whatever is copied there from the host is an error.
    assert processor(logits, deltas, ANCHORS.to('meta'), SIZE).labels.shape == (2, 100)


@pytest.mark.parametrize('settings', [dict(class_wise=False), dict(nms_pre=0)])
def test_classes__not_where_they_suppress_each_other(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match='classes suppress each other'):
        DetectionPostProcessor(classes=[1], **settings)
