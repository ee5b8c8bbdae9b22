from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from effdet_plugin.ops.boxes import clip_boxes, decode_deltas, encode_deltas, pairwise_iou
from support import random_boxes

seeds = st.integers(0, 2**31)


@given(seed=seeds)
def test_pairwise_iou__symmetric_and_between_0_and_1(seed: int) -> None:
    a, b = random_boxes(6, (60, 80), seed), random_boxes(9, (60, 80), seed + 1)
    iou = pairwise_iou(a, b)
    assert iou.shape == (6, 9)
    assert iou.min() >= 0
    assert iou.max() <= 1
    torch.testing.assert_close(iou, pairwise_iou(b, a).T)
    torch.testing.assert_close(pairwise_iou(a, a).diagonal(), torch.ones(6))


def test_pairwise_iou__by_hand() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]])
    others = torch.tensor([[5.0, 0, 15, 10], [10.0, 0, 20, 10], [0.0, 0, 5, 10]])
    assert pairwise_iou(box, others).tolist() == [[pytest.approx(1 / 3), 0.0, 0.5]]


def test_pairwise_iou__boxes_without_area_give_0_not_nan() -> None:
    point = torch.tensor([[3.0, 3, 3, 3]])
    assert pairwise_iou(point, point).tolist() == [[0.0]]
    assert pairwise_iou(torch.zeros(0, 4), point).shape == (0, 1)


def test_pairwise_iou__inverted_endless_and_whole_number_boxes() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]])
    odd = torch.tensor([[10.0, 10, 0, 0], [10.0, 0, 0, 10], [0.0, 0, torch.inf, torch.inf]])
    assert not pairwise_iou(box, odd).any()
    assert not pairwise_iou(odd, odd).any()  # inf / inf is no NaN
    assert torch.equal(pairwise_iou(box.long(), 2 * box.long()), torch.tensor([[0.25]]))


def test_pairwise_iou__three_tensors_of_all_pairs(allocations: Any) -> None:
    a, b = random_boxes(600, (50, 50)).reshape(2, 300, 4), random_boxes(200, (50, 50), 1)
    with allocations(2 * 300 * 200 * 4) as used:
        pairwise_iou(a, b)
    assert 3 <= used.peak < 3.1


def test_pairwise_iou__batches_broadcast() -> None:
    a, b = random_boxes(12, (50, 50)).reshape(3, 4, 4), random_boxes(5, (50, 50), 1)
    expected = torch.stack([pairwise_iou(x, b) for x in a])
    torch.testing.assert_close(pairwise_iou(a, b), expected)


@given(seed=seeds)
def test_decode__inverts_encode(seed: int) -> None:
    anchors, boxes = random_boxes(8, (300, 200), seed), random_boxes(8, (300, 200), seed + 1)
    decoded = decode_deltas(anchors, encode_deltas(anchors, boxes))
    torch.testing.assert_close(decoded, boxes, rtol=1e-4, atol=1e-3)


def test_encode__an_anchor_with_itself_is_0() -> None:
    anchors = random_boxes(5, (64, 64))
    assert not encode_deltas(anchors, anchors).any()


@pytest.mark.parametrize(
    ('delta', 'expected'),
    [
        ([0.0, 0, 0, 0], [10.0, 20, 30, 60]),
        ([0.5, 0, 0, 0], [20.0, 20, 40, 60]),  # half a width to the right
        ([0, -0.25, 0, 0], [10.0, 10, 30, 50]),  # a quarter of a height up
        ([0, 0, 0.6931472, 0], [0.0, 20, 40, 60]),  # twice as wide
    ],
)
def test_decode__by_hand(delta: list[float], expected: list[float]) -> None:
    boxes = decode_deltas(torch.tensor([10.0, 20, 30, 60]), torch.tensor(delta))
    torch.testing.assert_close(boxes, torch.tensor(expected), rtol=0, atol=1e-4)


@given(seed=seeds)
def test_clip__inside_and_a_second_time_nothing(seed: int) -> None:
    boxes = random_boxes(7, (200, 300), seed) - 50
    clipped = clip_boxes(boxes, (90, 120))
    limits = torch.tensor([120, 90, 120, 90])
    assert (clipped >= 0).all()
    assert (clipped <= limits).all()
    assert torch.equal(clip_boxes(clipped, (90, 120)), clipped)
    inside = ((boxes >= 0) & (boxes <= limits)).all(-1)
    assert torch.equal(clipped[inside], boxes[inside])


def test_ops__gradients_reach_the_deltas() -> None:
    def decode(deltas: Tensor) -> Tensor:
        return decode_deltas(random_boxes(3, (64, 64)).double(), deltas)

    deltas = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(decode, deltas)
