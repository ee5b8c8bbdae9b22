"""The image of predictions beside the ground truth."""

from pathlib import Path

import pytest
from mmengine.config import Config
from pycocotools.coco import COCO

from effdet_plugin.config import load
from effdet_plugin.demo import make_scenes, showcase
from effdet_plugin.errors import DatasetError
from effdet_plugin.inference import Detector
from support import REPOSITORY

CONFIGS = REPOSITORY / 'configs' / 'efficientdet'


def small(name: str) -> Config:
    return load(CONFIGS / name, image_size=(128, 192))


def ground_truth(folder: Path) -> COCO:
    return COCO(make_scenes(folder, train=1, val=4) / 'annotations' / 'val.json')


def test_showcase__a_row_for_each_of_the_richest_images(tmp_path: Path) -> None:
    coco = ground_truth(tmp_path / 'scenes')
    config = small('quickstart.py')
    # Another order than that of the annotations: classes are matched by name.
    classes = ('star', 'cross', 'triangle', 'ring')
    config.test_dataloader.dataset.dataset.metainfo.classes = classes
    detector = Detector(config, 'none')
    assert detector.classes == classes
    two = showcase(detector, coco, tmp_path / 'scenes' / 'val', count=2)
    three = showcase(detector, coco, tmp_path / 'scenes' / 'val', count=3)
    assert two.shape[0] < three.shape[0]
    assert two.shape[1] > 2 * 480


def test_showcase__a_class_that_the_detector_does_not_know(tmp_path: Path) -> None:
    detector = Detector(small('lite0_coco.py'), 'none')
    with pytest.raises(DatasetError, match=r"class '(ring|triangle|cross|star)'"):
        showcase(detector, ground_truth(tmp_path / 'scenes'), tmp_path / 'scenes' / 'val')
