"""The best anchor of each box, against all anchors; the share that is missed; what would do."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.registry import TASK_UTILS
from planted import build, write

from effdet_plugin.config import load
from effdet_plugin.data_check.anchors import _levels, anchor_reach, best_iou
from effdet_plugin.ops.anchors import anchor_boxes
from effdet_plugin.ops.boxes import pairwise_iou
from effdet_plugin.own_data import DatasetDescription, read_dataset
from support import REPOSITORY

CUSTOM = REPOSITORY / 'configs' / 'efficientdet' / 'custom_coco.py'


@pytest.mark.parametrize('size', [(128, 128), (96, 200)])
def test_best_iou__as_all_anchors(size: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    corners = random.uniform(0, 80, (300, 2))
    boxes = np.hstack([corners, corners + random.uniform(2, 90, (300, 2))])
    node = load(CUSTOM).model.bbox_head.anchor_generator
    found = best_iou(boxes, _levels(TASK_UTILS.build(node), size))
    every = anchor_boxes(size, octave_base_scale=3.0).double()
    expected = pairwise_iou(torch.tensor(boxes), every).amax(dim=1)
    assert np.abs(found - expected.numpy()).max() < 1e-6


def test_best_iou__mmdets_anchors() -> None:
    generator = AnchorGenerator(
        strides=[8, 16], ratios=[0.5, 1.0, 2.0], octave_base_scale=4, scales_per_octave=3
    )
    boxes = np.random.default_rng(2).uniform(0, 60, (100, 2))
    boxes = np.hstack([boxes, boxes + 30])
    every = torch.cat(generator.grid_priors([(16, 16), (8, 8)], device='cpu')).double()
    expected = pairwise_iou(torch.tensor(boxes), every).amax(dim=1)
    found = best_iou(boxes, _levels(generator, (128, 128)))
    assert np.abs(found - expected.numpy()).max() < 1e-6


def _with_boxes(folder: Path, width: float, height: float) -> DatasetDescription:
    documents = build(folder)
    for document in documents.values():
        for place, annotation in enumerate(document['annotations']):
            annotation['bbox'] = [5 + 3 * (place % 20), 7 + 2 * (place % 9), width, height]
    write(folder, documents)
    return read_dataset(folder)


# The images of 160 pixels are trained at 320: boxes of half the size in the file.
@pytest.mark.parametrize(
    ('width', 'height', 'key'), [(5, 5, 'octave_base_scale'), (90, 15, 'aspect_ratios')]
)
def test_advice__is_taken_and_helps(tmp_path: Path, width: float, height: float, key: str) -> None:
    description = _with_boxes(tmp_path, width, height)
    reach = anchor_reach(load(CUSTOM), description)
    assert reach is not None
    assert reach.missed > 0.9
    assert len(reach.best_iou) == 24
    option, *values = shlex.split(reach.advice.split(' (')[0])
    assert option == '--cfg-options'
    assert key in reach.advice
    better = anchor_reach(load(CUSTOM, options=values), description)
    assert better is not None
    assert better.missed < 0.7 * reach.missed


def test_reach__nothing_missed_gives_no_advice(tmp_path: Path) -> None:
    reach = anchor_reach(load(CUSTOM), _with_boxes(tmp_path, 40, 40))
    assert reach is not None
    assert (reach.missed, reach.advice) == (0, '')
    assert reach.size == (320, 320)


def test_reach__without_boxes(tmp_path: Path) -> None:
    documents = build(tmp_path)
    for document in documents.values():
        document['annotations'] = []
    write(tmp_path, documents)
    reach = anchor_reach(load(CUSTOM), read_dataset(tmp_path))
    assert reach is not None
    assert (reach.missed, len(reach.best_iou)) == (0, 0)
