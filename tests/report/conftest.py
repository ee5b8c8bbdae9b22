"""A small evaluation, its facts and its images."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from effdet_plugin.evaluation.coco_twelve import Evaluated
from effdet_plugin.report import Detections, Facts, collect

sys.path.append(str(Path(__file__).parent))
from small_truth import CLASSES, IDS, found, make_coco


@pytest.fixture(scope='session')
def evaluated() -> Evaluated:
    coco = make_coco(
        ['a<i>.png', 'b"&.png', 'gone.png'],
        [
            (0, 4, [10, 10, 20, 20], 0),
            (0, 9, [50, 50, 40, 40], 0),
            (1, 4, [10, 10, 50, 50], 0),
            (1, 9, [60, 60, 30, 30], 1),
        ],
    )
    results = [
        found(0, 4, [10, 10, 20, 20], 0.9),  # right
        found(0, 4, [50, 50, 40, 40], 0.8),  # a dog, taken for a cat
        found(1, 4, [10, 10, 50, 49], 0.7),  # right
        found(1, 9, [62, 62, 20, 20], 0.6),  # inside the crowd: neither right nor wrong
        found(2, 9, [0, 0, 10, 10], 0.2),  # nothing is there
    ]
    return Evaluated(coco, results, [10, 11, 12], IDS, CLASSES)


@pytest.fixture(scope='session')
def facts(evaluated: Evaluated) -> Facts:
    return collect(evaluated.coco, Detections.of(evaluated), CLASSES, IDS)


@pytest.fixture(scope='session')
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the images, one of which is gone."""
    folder = tmp_path_factory.mktemp('images')
    for name in ('a<i>.png', 'b"&.png'):
        cv2.imwrite(str(folder / name), np.full((100, 100, 3), 90, np.uint8))
    return folder
