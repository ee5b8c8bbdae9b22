import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effdet_plugin.ops.anchors import anchor_boxes, anchor_sides, level_sizes


@given(height=st.integers(1, 700), width=st.integers(1, 700))
def test_level_sizes__halved_with_rounding_up(height: int, width: int) -> None:
    sizes = level_sizes((height, width), 3, 7)
    assert sizes == [(-(-height // 2**level), -(-width // 2**level)) for level in range(3, 8)]


def test_anchors__512_has_49104_and_the_known_first() -> None:
    anchors = anchor_boxes((512, 512))
    assert anchors.shape == (49104, 4)
    assert anchors.dtype == torch.float32
    assert anchors[0].tolist() == [-12, -12, 20, 20]


def test_anchors__octave_outer_aspect_inner() -> None:
    first = anchor_boxes((512, 512))[:9]
    sides = first[:, 2:] - first[:, :2]
    torch.testing.assert_close(sides.prod(-1).sqrt()[::3], 32 * 2 ** (torch.arange(3) / 3))
    ratios = (sides[:, 0] / sides[:, 1]).tolist()
    assert ratios == pytest.approx([1, 2, 0.5] * 3, rel=1e-5)


def test_anchors__centres_row_by_row() -> None:
    anchors = anchor_boxes((256, 384), min_level=7, scales_per_octave=1, aspect_ratios=[1.0])
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert centres.tolist() == [[64 + 128 * x, 64 + 128 * y] for y in range(2) for x in range(3)]


@given(size=st.tuples(st.integers(8, 300), st.integers(8, 300)))
def test_anchors__centres_lie_in_the_picture(size: tuple[int, int]) -> None:
    anchors = anchor_boxes(size)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert (centres > 0).all()
    assert (centres < torch.tensor([size[1], size[0]])).all()


def test_anchor_sides__pairs_are_used_as_they_are() -> None:
    assert anchor_sides(2.0, 1, [(1.4, 0.7)]).tolist() == [[2.8, 1.4]]


def test_anchors__one_scale_per_level() -> None:
    anchors = anchor_boxes((64, 64), 3, 4, [1.0, 3.0], scales_per_octave=1, aspect_ratios=[1.0])
    sides = anchors[:, 2] - anchors[:, 0]
    assert sides.tolist() == [8.0] * 64 + [48.0] * 16
