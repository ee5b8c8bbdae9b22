import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effdet_plugin.ops.wbf import fuse_boxes
from support import load_oracle, random_boxes

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


def detections(number: int, seed: int = 0) -> Rows:
    generator = np.random.default_rng(seed)
    boxes = random_boxes(number, (100, 120), seed).numpy().astype(np.float64)
    return boxes, np.sort(generator.uniform(0.1, 1, number))[::-1], generator.integers(0, 3, number)


@pytest.mark.parametrize('case', ['a', 'b'])
def test_fuse_boxes__equals_the_reference(case: str) -> None:
    oracle = load_oracle('wbf')
    rows, expected = oracle[f'in_{case}'], oracle[f'out_{case}']
    boxes, scores, labels = fuse_boxes(rows[:, 1:5], rows[:, 5], rows[:, 6].astype(np.int64), 3)
    np.testing.assert_array_equal(labels, expected[:, 6])
    np.testing.assert_allclose(scores, expected[:, 5], atol=1e-6)
    np.testing.assert_allclose(boxes, expected[:, 1:5], atol=1e-4)


def test_fuse_boxes__keeps_the_last_class_unless_told_to_lose_it() -> None:
    boxes, scores = np.array([[0, 0, 10, 10], [20, 20, 30, 30.0]]), np.array([0.9, 0.8])
    labels = np.array([1, 2])  # 1-based, as the reference's
    assert fuse_boxes(boxes, scores, labels, 1)[2].tolist() == [1, 2]
    assert fuse_boxes(boxes, scores, labels, 1, labels_below=2)[2].tolist() == [1]


def test_fuse_boxes__averages_what_overlaps_and_punishes_what_few_models_see() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 12, 10], [50, 50, 60, 60.0]])
    fused, scores, _ = fuse_boxes(boxes, np.array([0.9, 0.6, 0.8]), np.zeros(3, np.int64), 2)
    np.testing.assert_allclose(fused, [[0, 0, 10.8, 10], [50, 50, 60, 60]])
    np.testing.assert_allclose(scores, [0.75, 0.4])


def test_fuse_boxes__nothing_gives_nothing() -> None:
    boxes, scores, labels = fuse_boxes(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), 2)
    assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))


def test_fuse_boxes__boxes_without_area_or_score_give_no_nan() -> None:
    boxes = np.array([[5, 5, 5, 5], [5, 5, 5, 5.0]])
    fused, scores, _ = fuse_boxes(boxes, np.zeros(2), np.zeros(2, np.int64), 1)
    assert np.isfinite(fused).all()
    assert scores.tolist() == [0, 0]


@given(st.integers(1, 25), st.integers(0, 1000))
def test_fuse_boxes__a_copy_of_every_detection_changes_nothing(number: int, seed: int) -> None:
    boxes, scores, labels = detections(number, seed)
    once = fuse_boxes(boxes, scores, labels, 1, iou_thr=0.999)
    twice = fuse_boxes(*(x.repeat(2, 0) for x in (boxes, scores, labels)), 2, iou_thr=0.999)
    for one, other in zip(once, twice, strict=True):
        np.testing.assert_allclose(other, one)


def test_fuse_boxes__refuses_no_models() -> None:
    with pytest.raises(ValueError, match='num_models='):
        fuse_boxes(*detections(3), 0)
