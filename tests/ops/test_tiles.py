"""Where tiles lie, and which boxes their borders cut."""

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from effdet_plugin.ops.tiles import (
    cut_sides,
    parts_of_others,
    tile_size_of_grid,
    tile_windows,
    whole_elsewhere,
)

SIDES = st.integers(1, 700)


def test_windows__by_hand() -> None:
    assert tile_windows((100, 180), (100, 100), 0.2) == [(0, 0, 100, 100), (80, 0, 180, 100)]
    assert tile_windows((100, 181), (100, 100), 0.2) == [
        (0, 0, 100, 100),
        (40, 0, 140, 100),
        (81, 0, 181, 100),
    ]
    assert tile_windows((60, 70), (100, 100), 0.5) == [(0, 0, 70, 60)]


@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES), st.floats(0, 0.8))
def test_windows__cover_the_image_and_overlap(
    image: tuple[int, int], tile: tuple[int, int], overlap: float
) -> None:
    windows = tile_windows(image, tile, overlap)
    height, width = min(tile[0], image[0]), min(tile[1], image[1])
    assert {(x2 - x1, y2 - y1) for x1, y1, x2, y2 in windows} == {(width, height)}
    for axis, (length, side) in enumerate(((image[1], width), (image[0], height))):
        starts = sorted({window[axis] for window in windows})
        assert starts[0] == 0
        assert starts[-1] + side == length
        gaps = [b - a for a, b in pairwise(starts)]
        assert all(gap <= max(1, side * (1 - overlap)) + 1 for gap in gaps)  # whole pixels


@given(st.tuples(SIDES, SIDES), st.tuples(st.integers(1, 6), st.integers(1, 6)), st.floats(0, 0.8))
def test_grid__has_that_many_tiles_at_most(
    image: tuple[int, int], grid: tuple[int, int], overlap: float
) -> None:
    tile = tile_size_of_grid(image, grid, overlap)
    windows = tile_windows(image, tile, overlap)
    assert len(windows) <= grid[0] * grid[1]
    if min(image) > 100:
        assert len(windows) == grid[0] * grid[1]


def test_grid__two_by_two_by_hand() -> None:
    assert tile_size_of_grid((1800, 2400), (2, 2), 0.2) == (1000, 1334)


def test_cut__only_at_borders_inside_the_image() -> None:
    window, image = (0, 50, 100, 150), (150, 300)
    boxes = torch.tensor(
        [
            [0.0, 70, 20, 90],  # the image's own left border
            [40, 130, 60, 150],  # the image's own lower border
            [40, 50, 60, 70],  # upper border, with more of the image beyond
            [79, 80, 99, 100],  # 1 px from the right border, 20 px long
            [70, 80, 90, 100],  # 10 px from it
            [95, 80, 110, 100],  # goes beyond it
        ]
    )
    sides = cut_sides(boxes, window, image)
    assert sides.any(1).tolist() == [False, False, True, True, False, True]
    assert sides[2].tolist() == [False, True, False, False]
    assert sides[3].tolist() == [False, False, True, False]


def test_parts__needs_a_sure_whole_box_of_another_view() -> None:
    whole, part = [0.0, 0, 20, 20], [0.0, 0, 10, 20]
    boxes = torch.tensor([whole, part])
    is_cut, views = torch.tensor([False, True]), torch.tensor([0, 1])

    def parts(scores: list[float], views: torch.Tensor, is_cut: torch.Tensor) -> list[bool]:
        return parts_of_others(boxes, torch.tensor(scores), views, is_cut).tolist()

    assert parts([0.6, 0.9], views, is_cut) == [False, True]
    assert parts([0.1, 0.9], views, is_cut) == [False, False]  # noise
    assert parts([0.6, 0.9], torch.tensor([1, 1]), is_cut) == [False, False]  # one view
    assert parts([0.6, 0.9], views, torch.tensor([True, True])) == [False, False]
    moved = torch.tensor([whole, [18.0, 0, 28, 20]])
    assert not parts_of_others(moved, torch.tensor([0.6, 0.9]), views, is_cut).any()


def test_parts__of_nothing() -> None:
    empty = torch.zeros(0)
    result = parts_of_others(torch.zeros(0, 4), empty, empty.long(), empty.bool())
    assert result.shape == (0,)


def test_cut__the_whole_image_cuts_nothing() -> None:
    boxes = torch.tensor([[0.0, 0, 5, 5], [-3, 2, 40, 30]])
    assert not cut_sides(boxes, (0, 0, 40, 30), (30, 40)).any()


def test_whole_elsewhere__short_boxes_across_the_border() -> None:
    """20 px long, with both margins 26: an overlap of 30 has it whole, one of 25 has not."""
    boxes = torch.tensor([[80.0, 0, 100, 60]]).repeat(3, 1)
    none, right, lower = [False] * 4, [False, False, True, False], [False, False, False, True]
    sides = torch.tensor([none, right, lower])
    assert whole_elsewhere(boxes, sides, (30, 30)).tolist() == [False, True, False]
    assert whole_elsewhere(boxes, sides, (25, 80)).tolist() == [False, False, True]
    assert not whole_elsewhere(boxes, sides, (0, 0)).any()


@given(st.integers(0, 160), st.integers(1, 30))
def test_an_object_shorter_than_the_overlap_is_kept_by_some_tile(start: int, length: int) -> None:
    windows = tile_windows((50, 190), (50, 100), 0.4)
    box = torch.tensor([[float(start), 10, min(start + length, 190), 30]])
    kept = []
    for window in windows:
        if window[0] < box[0, 2] and box[0, 0] < window[2]:
            seen = box.clone()
            seen[:, 0].clamp_(min=window[0])
            seen[:, 2].clamp_(max=window[2])
            sides = cut_sides(seen, window, (50, 190))
            if not whole_elsewhere(seen, sides, (40, 20)).any():
                kept.append(seen)
    assert any(torch.equal(seen, box) for seen in kept)
