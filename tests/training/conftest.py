"""A tiny dataset and a small network on it, for trainings of a second."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

from effdet_plugin.training import TrainSettings
from support import REPOSITORY

CLASSES = ('circle', 'square')
# Two images a batch: BN of a map of one position needs more than one.
SMALL = {
    'train_dataloader.batch_size': 2,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'val_dataloader.num_workers': 0,
    'val_dataloader.persistent_workers': False,
    'test_dataloader.num_workers': 0,
    'test_dataloader.persistent_workers': False,
    'train_cfg.max_epochs': 1,
    'train_cfg.val_interval': 1,
    'model.backbone.pretrained': False,
    'model.bbox_head.postprocessor.nms_pre': 100,
    'report': False,
}


@pytest.fixture(scope='session')
def small() -> dict[str, Any]:
    """Options that make a training short."""
    return dict(SMALL)


def _document(number: int, first: int) -> dict[str, Any]:
    """COCO json of images with one box each, category ids 3 and 7."""
    ids = range(first, first + number)
    return dict(
        images=[dict(id=i, file_name=f'{i}.png', width=64, height=48) for i in ids],
        annotations=[
            dict(
                id=i + 1,  # pycocotools never counts the box of id 0 as found
                image_id=i,
                bbox=[8, 8, 24, 20],
                area=480,
                iscrowd=0,
                category_id=(3, 7)[i % 2],
            )
            for i in ids
        ],
        categories=[dict(id=3, name=CLASSES[0]), dict(id=7, name=CLASSES[1])],
    )


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``train.json`` of four images, ``val.json`` of three, and images."""
    folder = tmp_path_factory.mktemp('data')
    for name, document in dict(train=_document(4, 0), val=_document(3, 10)).items():
        (folder / f'{name}.json').write_text(json.dumps(document))
        for image in document['images']:
            pixels = np.full((48, 64, 3), 40, np.uint8)
            cv2.rectangle(pixels, (8, 8), (32, 28), (200, 60 * (image['id'] % 4), 90), -1)
            cv2.imwrite(str(folder / image['file_name']), pixels)
    return folder


@pytest.fixture(scope='session')
def options(data: Path) -> dict[str, Any]:
    """Options that put the dataset into a COCO config, without ``--data``."""
    options: dict[str, Any] = dict(SMALL, **{'model.bbox_head.num_classes': 2})
    for loader, name in dict(train='train', val='val', test='val').items():
        inner = f'{loader}_dataloader.dataset.dataset'
        options[f'{inner}.data_root'] = ''
        options[f'{inner}.ann_file'] = str(data / f'{name}.json')
        options[f'{inner}.data_prefix.img'] = str(data)
        options[f'{inner}.metainfo.classes'] = CLASSES
    for evaluator in ('val_evaluator', 'test_evaluator'):
        options[f'{evaluator}.ann_file'] = str(data / 'val.json')
    return options


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The work dir of `settings`, which does not exist yet."""
    return tmp_path / 'run'


@pytest.fixture
def settings(data: Path, run_dir: Path, small: dict[str, Any]) -> TrainSettings:
    """A short training of Lite0 on the own data of `data`."""
    return TrainSettings(
        REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py',
        data=data,
        work_dir=run_dir,
        image_size=64,
        cfg_options=small,
        seed=3,
    )


@pytest.fixture(scope='session')
def hashes() -> Callable[[Path], dict[str, str]]:
    """A function that returns the hash of each file in a folder."""

    def of_files(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob('*') if path.is_file())
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return of_files


@pytest.fixture(autouse=True)
def _own_scope() -> Iterator[None]:
    """A runner leaves its default scope behind, and warns of the next one."""
    yield
    DefaultScope._instance_dict.clear()
