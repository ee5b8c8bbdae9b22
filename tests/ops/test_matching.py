import shutil
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from effdet_plugin.ops.boxes import pairwise_iou
from effdet_plugin.ops.matching import BLOCK, match_anchors
from support import random_boxes

seeds = st.integers(0, 2**31)
SIZE = (64, 64)


def one_by_one(anchors: Tensor, boxes: Tensor, pos_iou_thr: float, force: bool) -> list[int]:
    """The rule as it is told: thresholds anchor by anchor, then forced matches, last box first."""
    iou = pairwise_iou(boxes, anchors)
    matched = [-1] * len(anchors)
    for anchor in range(len(anchors)):
        best = int(iou[:, anchor].argmax()) if len(boxes) else -1
        if best >= 0 and iou[best, anchor] >= pos_iou_thr:
            matched[anchor] = best
    if force:
        for box in reversed(range(len(boxes))):
            matched[int(iou[box].argmax())] = box
    return matched


def match(anchors: Tensor, boxes: Tensor, **settings: object) -> Tensor:
    valid = torch.ones(1, len(boxes), dtype=torch.bool)
    return match_anchors(anchors, boxes[None], valid, **settings)[0]  # type: ignore[arg-type]


@given(seed=seeds, count=st.integers(0, 6), force=st.booleans(), thr=st.sampled_from([0.3, 0.5]))
def test_match__equals_the_rule_told_one_by_one(
    seed: int, count: int, force: bool, thr: float
) -> None:
    anchors, boxes = random_boxes(40, SIZE, seed), random_boxes(count, SIZE, seed + 1)
    found = match(anchors, boxes, pos_iou_thr=thr, match_low_quality=force)
    assert found.tolist() == one_by_one(anchors, boxes, thr, force)


@given(seed=seeds, count=st.integers(1, 9), block=st.integers(1, 4), force=st.booleans())
def test_match__blocks_of_boxes_change_nothing(
    seed: int, count: int, block: int, force: bool
) -> None:
    # On a grid, so that there are ties within blocks and across them.
    anchors, boxes = (
        8 * (x / 8).round() for x in (random_boxes(40, SIZE), random_boxes(count, SIZE, seed))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('effdet_plugin.ops.matching.BLOCK', block)
        found = match(anchors, boxes, pos_iou_thr=0.3, match_low_quality=force)
    assert found.tolist() == one_by_one(anchors, boxes, 0.3, force)


def test_match__a_crowd_beyond_one_block() -> None:
    anchors, boxes = random_boxes(300, SIZE), random_boxes(BLOCK, SIZE, 1)
    boxes = torch.cat([boxes, boxes, random_boxes(BLOCK // 2, SIZE, 2), boxes])  # many a tie
    found = match(anchors, boxes)
    assert found.tolist() == one_by_one(anchors, boxes, 0.5, True)
    assert found.max() >= 2 * BLOCK


@pytest.mark.parametrize('count', [BLOCK, 3 * BLOCK + 1])
def test_match__three_tensors_of_a_block_of_pairs(count: int, allocations: Any) -> None:
    anchors, boxes = random_boxes(1000, SIZE), random_boxes(2 * count, SIZE, 1)
    valid = torch.ones(2, count, dtype=torch.bool)
    with allocations(2 * BLOCK * 1000 * 4) as used:
        match_anchors(anchors, boxes.reshape(2, count, 4), valid)
    assert 3 <= used.peak < 3.2  # an IoU and an index for each anchor is the rest


def test_match__reads_nothing_on_the_host() -> None:
    count = BLOCK + 1  # tensors on `meta` have no values to read
    anchors, boxes = torch.empty(50, 4, device='meta'), torch.empty(2, count, 4, device='meta')
    valid = torch.empty(2, count, dtype=torch.bool, device='meta')
    assert match_anchors(anchors, boxes, valid).shape == (2, 50)


@given(seed=seeds)
def test_match__follows_a_permutation_of_the_anchors(seed: int) -> None:
    anchors, boxes = random_boxes(40, SIZE, seed), random_boxes(4, SIZE, seed + 1)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(match(anchors[order], boxes), match(anchors, boxes)[order])


@given(seed=seeds)
def test_match__follows_a_permutation_of_the_boxes(seed: int) -> None:
    # Where no two boxes want the same anchor, their order does not matter.
    anchors, boxes = random_boxes(200, SIZE, seed), random_boxes(3, SIZE, seed + 1)
    order = torch.tensor([2, 0, 1])
    if len(set(pairwise_iou(boxes, anchors).argmax(1).tolist())) == 3:
        found = match(anchors, boxes[order])
        assert torch.equal(torch.where(found >= 0, order[found], -1), match(anchors, boxes))


@given(seed=seeds)
def test_match__a_batch_is_its_images(seed: int) -> None:
    anchors = random_boxes(50, SIZE, seed)
    images = [random_boxes(n, SIZE, seed + n) for n in (3, 0, 5, 1)]
    boxes = torch.zeros(4, 5, 4)
    valid = torch.zeros(4, 5, dtype=torch.bool)
    for i, image in enumerate(images):
        boxes[i, : len(image)], valid[i, : len(image)] = image, True
    found = match_anchors(anchors, boxes, valid)
    assert torch.equal(found, torch.stack([match(anchors, image) for image in images]))


def test_match__every_box_has_an_anchor_unless_an_earlier_one_took_it() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [50.0, 50, 60, 60]])
    boxes = torch.tensor([[0.0, 0, 1, 1], [0.0, 0, 2, 2], [55.0, 55, 56, 56]])
    assert match(anchors, boxes).tolist() == [0, 2]  # the second box goes without


def test_match__forced_matches_steal() -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10]])
    boxes = torch.tensor([[0.0, 0, 1, 1], [0.0, 0, 10, 10]])
    assert match(anchors, boxes).tolist() == [0]
    assert match(anchors, boxes, match_low_quality=False).tolist() == [1]


def test_match__ties_go_to_the_first() -> None:
    anchors = torch.tensor([[0.0, 0, 4, 4], [4.0, 0, 8, 4]])
    twins = torch.tensor([[2.0, 0, 6, 4], [2.0, 0, 6, 4]])  # overlaps both anchors alike
    assert match(anchors, twins).tolist() == [0, -1]
    assert match(anchors, twins, pos_iou_thr=0.1).tolist() == [0, 0]


@pytest.mark.parametrize(('batch', 'boxes', 'anchors'), [(2, 0, 7), (0, 3, 7), (2, 3, 0)])
def test_match__nothing_to_match(batch: int, boxes: int, anchors: int) -> None:
    valid = torch.ones(batch, boxes, dtype=torch.bool)
    found = match_anchors(random_boxes(anchors, SIZE), torch.rand(batch, boxes, 4), valid)
    assert found.tolist() == [[-1] * anchors] * batch


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='compiling needs g++')
@pytest.mark.parametrize('count', [5, 7, BLOCK + 1])
@pytest.mark.timeout(600)
def test_match__compiled_is_the_same(count: int) -> None:
    # torch 2.13 can order a scatter behind what reads it: with some numbers of boxes, found by
    # trying, no forced match was left.
    compiled = torch.compile(match_anchors, fullgraph=True, dynamic=False)
    anchors = random_boxes(300, SIZE)
    for seed in range(5):
        boxes = random_boxes(2 * count, SIZE, seed).reshape(2, count, 4)
        valid = torch.rand(2, count) > 0.3
        found = compiled(anchors, boxes, valid)
        assert torch.equal(found, match_anchors(anchors, boxes, valid))
