"""The picture of predictions beside ground truth."""

from pathlib import Path

import pytest
from mmengine.config import Config
from pycocotools.coco import COCO

from effdet_plugin.datasets.scenes import make_scenes
from effdet_plugin.errors import DatasetError
from effdet_plugin.inference import Detector
from effdet_plugin.inference.showcase import showcase


def _scenes(folder: Path) -> COCO:
    return COCO(make_scenes(folder, train=1, val=4) / 'annotations' / 'val.json')


def test_showcase__a_row_for_each_of_the_richest_pictures(
    tiny_config: Config, tmp_path: Path
) -> None:
    coco = _scenes(tmp_path / 'scenes')
    tiny_config.model.bbox_head.num_classes = 4
    tiny_config.test_dataloader.dataset.dataset.metainfo.classes = (
        'star',
        'cross',
        'triangle',
        'ring',
    )
    detector = Detector(tiny_config, 'none')
    two = showcase(detector, coco, tmp_path / 'scenes' / 'val', count=2)
    three = showcase(detector, coco, tmp_path / 'scenes' / 'val', count=3)
    assert two.shape[0] < three.shape[0]
    assert two.shape[1] > 2 * 480


def test_showcase__a_class_that_the_detector_does_not_know(
    tiny_config: Config, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match='knows no class'):
        showcase(
            Detector(tiny_config, 'none'),
            _scenes(tmp_path / 'scenes'),
            tmp_path / 'scenes' / 'val',
        )
