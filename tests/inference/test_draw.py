"""Drawings: size, places, and that the given image is not changed."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from effdet_plugin.inference.draw import (
    Drawable,
    class_colour,
    draw_boxes,
    side_by_side,
    stack,
)


def _thing(*box: float, label: int = 0, score: float | None = None) -> Drawable:
    scores = None if score is None else np.array([score], np.float32)
    return Drawable(np.array([box], np.float32), np.array([label]), scores)


def test_draw_boxes__outline_in_the_class_colour_and_a_tag() -> None:
    image = np.full((200, 300, 3), 128, np.uint8)
    drawn = draw_boxes(image, _thing(40, 60, 200, 150, label=1, score=0.5), ['cat', 'dog'])
    assert drawn.shape == image.shape
    assert (image == 128).all()
    assert tuple(drawn[100, 40]) == class_colour(1)
    assert tuple(drawn[150, 120]) == class_colour(1)
    assert (drawn[100, 100] == 128).all()  # the inside stays free
    assert (drawn[45:59, 41:60] != 128).any()  # the tag lies above the box
    assert (drawn[160:] == 128).all()


@pytest.mark.parametrize('size', [(1, 1), (1600, 12), (20, 2000), (60, 80), (3000, 2000)])
def test_draw_boxes__any_image_size(size: tuple[int, int]) -> None:
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)
    drawn = draw_boxes(image, _thing(-5, -5, width + 9, height + 9, score=0.9), ['a long name'])
    assert drawn.shape == image.shape
    assert drawn.any()


def test_draw_boxes__nothing_to_draw_changes_nothing() -> None:
    image = np.full((50, 60, 3), 7, np.uint8)
    empty = Drawable(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    np.testing.assert_array_equal(draw_boxes(image, empty, []), image)


def test_draw_boxes__the_best_score_is_on_top() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    boxes = np.array([[20, 50, 120, 150]] * 2, np.float32)
    for order in ([0.9, 0.2], [0.2, 0.9]):
        scores = np.array(order, np.float32)
        drawn = draw_boxes(image, Drawable(boxes, np.array([0, 1]), scores), ['a', 'b'])
        assert tuple(drawn[100, 20]) == class_colour(int(scores.argmax()))


def test_draw_boxes__not_a_number_does_not_break_a_image() -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    assert draw_boxes(image, _thing(np.nan, 2, np.inf, 9), ['a']).shape == image.shape


def test_drawable__takes_mmdet_instances_above_a_score() -> None:
    instances = InstanceData(
        bboxes=torch.rand(3, 4),
        labels=torch.tensor([0, 1, 2]),
        scores=torch.tensor([0.9, 0.4, 0.3]),
    )
    assert Drawable.of(instances, score_thr=0.4).labels.tolist() == [0, 1]
    truth = InstanceData(bboxes=torch.rand(2, 4), labels=torch.tensor([5, 6]))
    assert Drawable.of(truth, score_thr=0.4).scores is None


def test_class_colour__neighbours_differ() -> None:
    colours = np.array([class_colour(label) for label in range(80)], int)
    assert np.abs(np.diff(colours, axis=0)).sum(axis=1).min() > 100
    assert len({tuple(colour) for colour in colours.tolist()}) > 70


def test_side_by_side__both_halves_show_their_own_boxes() -> None:
    image = np.full((100, 150, 3), 128, np.uint8)
    drawn = side_by_side(image, _thing(30, 40, 80, 90), _thing(60, 40, 110, 90), ['a'], 200)
    half = (drawn.shape[1] - 8) // 2
    assert half == 300
    assert tuple(drawn[32 + 130, 60]) == class_colour(0)
    assert tuple(drawn[32 + 130, half + 8 + 120]) == class_colour(0)
    assert np.abs(drawn[32 + 130, half + 8 + 60].astype(int) - 128).max() < 3


def test_stack__pads_to_the_widest() -> None:
    rows = stack([np.zeros((10, 30, 3), np.uint8), np.zeros((5, 20, 3), np.uint8)])
    assert rows.shape == (10 + 5 + 16, 30, 3)
