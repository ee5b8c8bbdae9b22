import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ops.plain_nms import plain_nms
from torch import Tensor, nn

from effdet_plugin.errors import ConfigError
from effdet_plugin.ops import nms_cpu
from effdet_plugin.ops.boxes import box_area, pairwise_iou
from effdet_plugin.ops.nms import (
    NEG_INF,
    Candidates,
    batched_nms,
    nms_step,
    suppress,
    suppress_in_rounds,
)
from effdet_plugin.ops.nms_cpu import NO_SCORE, NmsRule
from support import random_boxes

seeds = st.integers(0, 2**31)
methods = st.sampled_from(['hard', 'gaussian'])


def ten_lines(
    boxes: Tensor, scores: Tensor, labels: Tensor, method: str, number: int, class_wise: bool
) -> tuple[list[int], list[float]]:
    iou = pairwise_iou(boxes, boxes)
    current: list[float] = scores.tolist()
    keep: list[int] = []
    kept: list[float] = []
    while len(keep) < number and max(current, default=0) > 0.1:
        best = current.index(max(current))
        keep.append(best)
        kept.append(current[best])
        for i in range(len(current)):
            if not class_wise or labels[i] == labels[best]:
                overlap = float(iou[best, i])
                hard = float(overlap <= 0.5)
                current[i] *= hard if method == 'hard' else math.exp(-(overlap**2) / 0.5)
        current[best] = 0.0
    return keep, kept


def candidates(seed: int, count: int = 30) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(count, (40, 40), seed)
    scores = torch.rand(count, generator=generator)
    return boxes, scores, torch.randint(0, 3, (count,), generator=generator)


def nms(
    boxes: Tensor, scores: Tensor, labels: Tensor, **settings: Any
) -> tuple[list[int], list[float]]:
    settings = {'score_thr': 0.1, 'max_per_img': 12, **settings}
    keep, kept = batched_nms(boxes[None], scores[None], labels[None], **settings)
    real = kept[0] != NEG_INF
    assert not keep[0][~real].any()  # padding is index 0
    return keep[0][real].tolist(), kept[0][real].tolist()


@given(seed=seeds, method=methods, class_wise=st.booleans(), number=st.sampled_from([5, 40]))
def test_nms__equals_ten_lines(seed: int, method: str, class_wise: bool, number: int) -> None:
    data = candidates(seed)
    keep, kept = nms(*data, method=method, class_wise=class_wise, max_per_img=number)
    expected, scores = ten_lines(*data, method, number, class_wise)
    assert keep == expected
    assert kept == pytest.approx(scores, abs=1e-5)


@given(seed=seeds, method=methods)
def test_nms__a_batch_is_its_images(seed: int, method: str) -> None:
    images = [candidates(seed + i) for i in range(3)]
    boxes, scores, labels = (torch.stack(parts) for parts in zip(*images, strict=True))
    keep, kept = batched_nms(boxes, scores, labels, method=method, score_thr=0.1, max_per_img=12)
    for i, image in enumerate(images):
        own, own_scores = nms(*image, method=method)
        assert keep[i][: len(own)].tolist() == own
        assert kept[i][: len(own)].tolist() == own_scores


@given(seed=seeds, method=methods)
def test_nms__padding_changes_nothing(seed: int, method: str) -> None:
    boxes, scores, labels = candidates(seed)
    padded = (
        torch.cat([boxes, random_boxes(5, (40, 40), seed + 1)]),
        torch.cat([scores, torch.full((5,), NEG_INF)]),
        torch.cat([labels, torch.zeros(5, dtype=torch.long)]),
    )
    assert nms(*padded, method=method) == nms(boxes, scores, labels, method=method)


@given(seed=seeds)
def test_hard__kept_boxes_overlap_little_and_stay_when_done_again(seed: int) -> None:
    boxes, scores, labels = candidates(seed)
    keep, kept = nms(boxes, scores, labels, method='hard', class_wise=False, max_per_img=40)
    iou = pairwise_iou(boxes[keep], boxes[keep]).fill_diagonal_(0)
    assert (iou <= 0.5).all()
    assert kept == sorted(kept, reverse=True)
    assert kept == scores[keep].tolist()
    again, _ = nms(boxes[keep], scores[keep], labels[keep], method='hard', class_wise=False)
    assert again == list(range(min(len(keep), 12)))


@given(seed=seeds)
def test_gaussian__scores_never_rise_and_come_in_order(seed: int) -> None:
    boxes, scores, labels = candidates(seed)
    keep, kept = nms(boxes, scores, labels, method='gaussian', class_wise=False)
    assert len(set(keep)) == len(keep)
    assert (torch.tensor(kept) <= scores[keep] + 1e-7).all()
    assert kept == sorted(kept, reverse=True)


def test_gaussian__the_references_three_boxes() -> None:
    # IoU .82 and .67 with the first: the third overtakes the second (FACTS of the reference).
    boxes = torch.tensor([[0.0, 0, 100, 100], [0.0, 0, 100, 82], [0.0, 0, 67, 100]])
    keep, kept = nms(
        boxes, torch.tensor([0.9, 0.8, 0.6]), torch.zeros(3, dtype=torch.long), score_thr=0.01
    )
    assert keep == [0, 2, 1]
    second = 0.6 * math.exp(-(0.67**2) / 0.5)
    assert kept[:2] == pytest.approx([0.9, second], rel=1e-4)


def test_nms__ties_go_to_the_first() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 10], [50.0, 50, 60, 60]])
    labels = torch.zeros(3, dtype=torch.long)
    assert nms(boxes, torch.full((3,), 0.5), labels, method='hard')[0] == [0, 2]


def test_nms__iou_of_exactly_the_threshold_stays() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 5]])
    labels = torch.zeros(2, dtype=torch.long)
    assert nms(boxes, torch.tensor([0.9, 0.8]), labels, method='hard')[0] == [0, 1]


def test_nms__score_of_exactly_the_threshold_goes() -> None:
    boxes, labels = random_boxes(1, (9, 9)), torch.zeros(1, dtype=torch.long)
    assert nms(boxes, torch.tensor([0.25]), labels, score_thr=0.25)[0] == []
    assert nms(boxes, torch.tensor([0.25]), labels, score_thr=NEG_INF)[0] == [0]


@pytest.mark.parametrize('shape', [(2, 0), (0, 4)])
def test_nms__nothing_there(shape: tuple[int, int]) -> None:
    labels = torch.zeros(shape, dtype=torch.long)
    keep, kept = batched_nms(torch.zeros(*shape, 4), torch.zeros(shape), labels, max_per_img=3)
    assert keep.tolist() == [[0] * 3] * shape[0]
    assert kept.tolist() == [[NEG_INF] * 3] * shape[0]


def test_nms__unknown_method() -> None:
    with pytest.raises(ConfigError, match=r"method='linear'.*gaussian, hard"):
        nms(*candidates(0), method='linear')


def hostile_candidates(seed: int, batch: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes on a coarse grid (equal ones, some without area), saturated, equal and no scores."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 6, (batch, count, 4), generator=generator) * 7.3
    boxes = torch.cat([torch.minimum(corners[..., :2], corners[..., 2:]), corners[..., 2:]], -1)
    scores = torch.randn(batch, count, generator=generator).mul(30).round(decimals=0).sigmoid()
    scores[torch.rand(batch, count, generator=generator) < 0.1] = NEG_INF
    return boxes, scores, torch.randint(0, 3, (batch, count), generator=generator)


@given(
    seed=seeds,
    method=methods,
    class_wise=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    score_thr=st.sampled_from([NEG_INF, 0.0, 0.001, 0.5, 1.0]),
    number=st.sampled_from([1, 30, 60]),
)
def test_nms__equal_to_the_bit_to_a_plain_loop(
    seed: int,
    method: str,
    class_wise: bool,
    dtype: torch.dtype,
    score_thr: float,
    number: int,
) -> None:
    boxes, scores, labels = hostile_candidates(seed, 1 + seed % 3, 40)
    settings: dict[str, Any] = dict(
        method=method, class_wise=class_wise, score_thr=score_thr, max_per_img=number
    )
    data = (boxes.to(dtype), scores.to(dtype), labels)
    keep, kept = batched_nms(*data, **settings)
    expected_keep, expected = plain_nms(*data, **settings)
    assert torch.equal(keep, expected_keep)
    assert torch.equal(kept, expected)
    assert kept.dtype == torch.float32
    # The same rounds in PyTorch, which GPUs and compiled code take.
    rule = NmsRule(method=method, score_thr=score_thr, class_wise=class_wise)
    start = torch.where(data[1] > max(score_thr, NO_SCORE), data[1].float(), NO_SCORE)
    keep, kept = suppress_in_rounds(data[0].float(), start, labels, rule, number)
    assert torch.equal(keep, expected_keep)
    assert torch.equal(torch.where(kept > NO_SCORE, kept, NEG_INF), expected)


def test_nms__ends_when_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = []

    def counted(*args: Any) -> Any:
        rounds.append(1)
        return take(*args)

    take = nms_cpu._Image.take
    monkeypatch.setattr(nms_cpu._Image, 'take', counted)
    boxes, scores, labels = candidates(0)
    keep, _ = nms(boxes, scores, labels, method='hard', score_thr=0.8, max_per_img=25)
    assert 2 < len(keep) < 15
    assert len(rounds) == len(keep) + 1


def test_step__writes_nothing_in_place() -> None:
    boxes, scores, labels = (x[None] for x in candidates(0))
    corners = boxes.transpose(1, 2).split(2, 1)
    given = Candidates(*corners, box_area(boxes), labels)
    before = [x.clone() for x in (scores, *given)]
    for method in ('hard', 'gaussian'):
        nms_step(scores, given, NmsRule(method=method))
    assert all(torch.equal(a, b) for a, b in zip(before, (scores, *given), strict=True))


class Suppress(nn.Module):
    """NMS as a module, to export it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return suppress(boxes, scores, labels, **self.settings)


def exported(batch: int, **settings: Any) -> torch.export.ExportedProgram:
    example = tuple(
        torch.stack(x) for x in zip(*[candidates(i) for i in range(batch)], strict=True)
    )
    shapes = ({0: torch.export.Dim('batch', min=1, max=64)},) * 3
    return torch.export.export(Suppress(**settings), example, dynamic_shapes=shapes)


@pytest.mark.parametrize('settings', [dict(method='hard'), dict(score_thr=NEG_INF)])
def test_graph__a_loop_equal_to_eager(settings: dict[str, Any]) -> None:
    settings = {'method': 'gaussian', 'score_thr': 0.3, 'max_per_img': 20, **settings}
    program = exported(2, **settings)
    assert 'while_loop' in str(program.graph)
    assert len(list(program.graph.nodes)) < 60  # the loop is not unrolled
    run = program.module()
    for batch in (1, 2, 3):
        data = [torch.stack(x) for x in zip(*[candidates(i) for i in range(batch)], strict=True)]
        data[1][0] *= 0.1  # an image without detections beside others
        for found, expected in zip(run(*data), suppress(*data, **settings), strict=True):
            assert torch.equal(found, expected)
