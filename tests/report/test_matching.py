"""Matches, thresholds and calibration, against numbers worked out by hand and properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effdet_plugin.report.matching import (
    Boxes,
    best_cut,
    calibrate,
    confusion_of,
    cut_at,
    match,
    pairwise_iou,
)


def boxes(
    rows: list[tuple[float, float, float, float]],
    labels: list[int],
    scores: list[float] | None = None,
    ignored: list[bool] | None = None,
) -> Boxes:
    return Boxes(
        np.array(rows, np.float64).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(scores or [0.0] * len(rows)),
        np.array(ignored or [False] * len(rows), bool),
    )


def test_iou() -> None:
    first = boxes([(0, 0, 2, 2), (0, 0, 0, 0)], [0, 0]).boxes
    second = boxes([(1, 0, 3, 2), (0, 0, 2, 2), (5, 5, 6, 6)], [0, 0, 0]).boxes
    assert pairwise_iou(first, second)[0] == pytest.approx([2 / 6, 1, 0])
    assert pairwise_iou(first, second)[1] == pytest.approx([0, 0, 0])
    assert pairwise_iou(first, second, of_first=True)[0] == pytest.approx([0.5, 1, 0])


def test_match__its_own_class_comes_before_a_better_score_of_another() -> None:
    truth = boxes([(0, 0, 10, 10)], [1])
    found = boxes([(0, 0, 10, 10), (0, 0, 10, 9)], [0, 1], [0.9, 0.3])
    hits = match(found, truth)
    assert hits.truth_of.tolist() == [-1, 0]
    assert not hits.is_missed.any()
    # Alone, the other class is a confusion.
    alone = found.kept(np.array([True, False]))
    hits = match(alone, truth)
    assert hits.truth_of.tolist() == [0]
    assert confusion_of(alone, truth, hits, 2).tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_match__of_nothing() -> None:
    hits = match(Boxes.none(), boxes([(0, 0, 9, 9)], [0]))
    assert hits.is_missed.tolist() == [True]
    hits = match(boxes([(0, 0, 9, 9)], [0], [0.5]), Boxes.none())
    assert hits.truth_of.tolist() == [-1]


def test_match__a_crowd_is_not_missed_and_what_is_in_it_not_wrong() -> None:
    truth = boxes([(0, 0, 50, 50)], [0], ignored=[True])
    found = boxes([(5, 5, 15, 15), (70, 70, 90, 90)], [0, 0], [0.9, 0.8])
    hits = match(found, truth)
    assert hits.is_ignored.tolist() == [True, False]
    assert confusion_of(found, truth, hits, 1).tolist() == [[0, 0], [1, 0]]


@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(0, 12))
def test_confusion__counts_each_object_and_each_detection_once(
    seed: int, objects: int, detections: int
) -> None:
    rng = np.random.default_rng(seed)

    def some(number: int) -> Boxes:
        low = rng.uniform(0, 40, (number, 2))
        rows = np.concatenate([low, low + rng.uniform(1, 30, (number, 2))], axis=1)
        labels, scores = rng.integers(0, 3, number), rng.uniform(size=number)
        return Boxes(rows, labels, scores, np.zeros(number, bool))

    truth, found = some(objects), some(detections)
    hits = match(found, truth)
    used = hits.truth_of[hits.truth_of >= 0]
    assert len(used) == len(set(used.tolist()))
    counts = confusion_of(found, truth, hits, 3)
    assert counts[:3].sum(axis=1).tolist() == np.bincount(truth.labels, minlength=3).tolist()
    assert counts[:, :3].sum(axis=0).tolist() == np.bincount(found.labels, minlength=3).tolist()


def test_best_cut__by_hand() -> None:
    scores, right = np.array([0.2, 0.9, 0.8, 0.6]), np.array([False, True, False, True])
    # F1 after 1, 2, 3, 4 detections of 3 objects: 2/4, 2/5, 4/6, 4/7.
    cut = best_cut(scores, right, 3)
    assert cut == pytest.approx((0.6, 4 / 6, 2 / 3, 2 / 3))
    assert cut_at(scores, right, 3, 0.85) == pytest.approx((0.85, 0.5, 1.0, 1 / 3))


def test_best_cut__without_objects_or_detections() -> None:
    assert np.isnan(best_cut(np.array([0.5]), np.array([False]), 0)).all()
    cut = best_cut(np.zeros(0), np.zeros(0, bool), 4)
    assert (cut.f1, cut.recall) == (0, 0)


@given(
    st.lists(
        st.tuples(st.floats(2**-7, 1, width=16), st.booleans()),
        min_size=1,
        max_size=30,
    ),
    st.integers(0, 5),
)
def test_best_cut__no_other_threshold_is_better(
    rows: list[tuple[float, bool]], missed: int
) -> None:
    scores, right = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    objects = int(right.sum()) + missed
    if not objects:
        return
    cut = best_cut(scores, right, objects)
    others = [cut_at(scores, right, objects, score).f1 for score in scores]
    # It is rounded down, so scores within a thousandth may come in.
    close = (np.abs(scores[:, None] - scores[None]) < 1e-3) & (scores[:, None] != scores[None])
    if not close.any():
        assert cut.f1 == pytest.approx(max(others))


def test_calibrate() -> None:
    found = calibrate(np.array([0.05, 0.95, 1.0, 0.96]), np.array([False, True, True, False]))
    assert found.counts.tolist() == [1, *[0] * 8, 3]
    assert found.share_right[[0, 9]] == pytest.approx([0, 2 / 3])
    assert np.isnan(found.share_right[4])
    assert found.error == pytest.approx((0.05 + abs(2 - 2.91)) / 4)
    assert np.isnan(calibrate(np.zeros(0), np.zeros(0, bool)).error)
