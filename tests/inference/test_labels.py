"""Labels: inside the image, never over each other, the best scores first."""

from itertools import combinations

import numpy as np
import pytest

from effdet_plugin.inference.draw import Drawable, place_tags
from effdet_plugin.inference.labels import MAX_COVERED_SHARE, Rectangle, place_labels


def many(size: tuple[int, int], number: int) -> Drawable:
    """Boxes of all sizes, more in the middle, for an image (height, width)."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0.5, 0.2, (number, 2)).clip(0, 1) * size[::-1]
    sides = np.exp(rng.normal(np.log(min(size) / 10), 0.8, (number, 2)))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], 1).astype(np.float32)
    return Drawable(boxes, rng.integers(0, 3, number), rng.random(number).astype(np.float32))


def overlap(first: Rectangle, second: Rectangle) -> bool:
    return (
        first[0] < second[2] and second[0] < first[2]
        and first[1] < second[3] and second[1] < first[3]
    )  # fmt: skip


@pytest.mark.parametrize('size', [(240, 320), (427, 320), (2250, 4000), (60, 900)])
def test_place_tags__a_hundred_detections(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    things = many(size, 100)
    tags = place_tags(image, things, ['cat', 'traffic light', 'potted plant'])
    places = [tag.place for tag in tags.values()]
    assert not any(overlap(a, b) for a, b in combinations(places, 2))
    for x1, y1, x2, y2 in places:
        assert 0 <= x1 < x2 <= size[1]
        assert 0 <= y1 < y2 <= size[0]
    assert len(places) >= 10
    covered = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in places)
    assert covered <= MAX_COVERED_SHARE * size[0] * size[1]
    assert things.scores is not None
    assert int(things.scores.argmax()) in tags


def test_place_labels__the_first_of_two_equal_boxes_is_above_the_second_elsewhere() -> None:
    box = (50, 50, 150, 120)
    first, second = place_labels([box, box], [(60, 20)] * 2, (400, 400))
    assert first == (50, 30, 110, 50)
    assert second is not None
    assert not overlap(first, second)


def test_place_labels__without_room_above_it_is_inside() -> None:
    assert place_labels([(0, 0, 300, 200)], [(60, 20)], (300, 200)) == [(0, 0, 60, 20)]


def test_place_labels__what_does_not_fit_is_left_out() -> None:
    assert place_labels([(0, 0, 30, 30)], [(60, 20)], (50, 50)) == [None]
    assert place_labels([], [], (50, 50)) == []


def test_place_labels__no_corner_of_another_box_is_covered_if_possible() -> None:
    """The corner of the second box lies where the first label would be."""
    first, _ = place_labels([(50, 50, 150, 120), (60, 40, 70, 200)], [(60, 20)] * 2, (400, 400))
    assert first is not None
    assert not (first[0] <= 60 < first[2] and first[1] <= 40 < first[3])
