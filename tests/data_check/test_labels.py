"""Boxes that are there twice, against all pairs; class names that may be one."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from effdet_plugin.data_check.labels import TWICE_IOU, box_pairs
from effdet_plugin.ops.boxes import pairwise_iou
from effdet_plugin.own_data import Image
from effdet_plugin.own_data.forms import names_alike


def _image(boxes: np.ndarray, crowd: np.ndarray | None = None) -> Image:
    count = len(boxes)
    no = np.zeros(count, dtype=bool)
    return Image(
        id=1,
        path=Path('x.jpg'),
        width=1000,
        height=1000,
        boxes=boxes,
        labels=np.zeros(count, np.int64),
        crowd=no if crowd is None else crowd,
        difficult=no,
        annotation_ids=np.arange(count),
        areas=np.ones(count),
    )


@pytest.mark.parametrize('seed', range(4))
def test_box_pairs__as_all_pairs(seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 400, (60, 2))
    boxes = np.hstack([corners, corners + random.uniform(5, 300, (60, 2))])
    boxes = np.concatenate([boxes, boxes[::2] + random.normal(0, 3, (30, 4))])
    iou = pairwise_iou(torch.tensor(boxes), torch.tensor(boxes)).triu(1)
    expected = [(int(i), int(j)) for i, j in (iou > TWICE_IOU).nonzero()]
    assert len(expected) > 5
    assert [(pair.first, pair.second) for pair in box_pairs(_image(boxes))] == expected


def test_box_pairs__no_crowds_and_none() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 10]])
    assert len(box_pairs(_image(boxes))) == 1
    assert box_pairs(_image(boxes, np.array([True, False]))) == []
    assert box_pairs(_image(np.zeros((0, 4)))) == []


def test_box_pairs__many_boxes_are_quick() -> None:
    corners = np.random.default_rng(0).uniform(0, 900, (20_000, 2))
    start = time.process_time()
    assert box_pairs(_image(np.hstack([corners, corners + 8])))
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ('names', 'counts', 'alike'),
    [
        (('RBC', 'WBC', 'Platelets'), (4000, 370, 360), []),
        (('RBC', 'rbc'), (4000, 2), [('rbc', 'RBC')]),
        (('hot dog', 'Hot-Dog', 'dog'), (5, 9, 7), [('hot dog', 'Hot-Dog')]),
        (('Platelets', 'Platelet'), (1, 300), [('Platelets', 'Platelet')]),
        (('Platelets', 'Plateletts'), (300, 4), [('Plateletts', 'Platelets')]),
        (('sheep', 'sheet'), (300, 280), []),  # both are usual
        (('class1', 'class2', 'class12'), (300, 1, 1), []),
        (('猫', '犬', ''), (3, 3, 0), []),
        (('ｃａｔ', 'cat'), (3, 9), [('ｃａｔ', 'cat')]),
    ],
)
def test_names_alike(
    names: tuple[str, ...], counts: tuple[int, ...], alike: list[tuple[str, str]]
) -> None:
    assert list(names_alike(names, counts)) == alike
