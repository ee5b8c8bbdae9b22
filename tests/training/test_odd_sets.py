"""Datasets at the edges: each is trained, or refused in one line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from effdet_plugin.errors import UserError
from effdet_plugin.inference.detector import Detector
from effdet_plugin.training import TrainSettings, dry_run, train

# In training the network does not count: a set is either read, matched and evaluated, or not.
TINY = {
    'model.backbone.model_name': 'test_efficientnet',
    'model.neck.in_channels': [32, 48, 64],
    'model.neck.num_cells': 1,
    'model.bbox_head.stacked_convs': 1,
}
Boxes = list[tuple[int, tuple[int, int, int, int]]]  # category id, xywh
BOX = (8, 8, 24, 20)


def _write(
    folder: Path,
    names: list[str],
    splits: dict[str, list[Boxes]],
    size: tuple[int, int] = (64, 48),
) -> Path:
    """Write a COCO folder: a split is a list of images, each with its boxes."""
    for split, images in splits.items():
        (folder / split).mkdir(parents=True)
        document: dict[str, Any] = dict(images=[], annotations=[])
        document['categories'] = [dict(id=i, name=name) for i, name in enumerate(names, 1)]
        for number, boxes in enumerate(images, 1):
            name = f'{split}{number}.jpg'
            width, height = size
            document['images'].append(dict(id=number, file_name=name, width=width, height=height))
            cv2.imwrite(str(folder / split / name), np.full((height, width, 3), 90, np.uint8))
            document['annotations'] += [
                dict(
                    id=len(document['annotations']) + i,
                    image_id=number,
                    category_id=category,
                    bbox=list(box),
                    area=box[2] * box[3],
                    iscrowd=0,
                )
                for i, (category, box) in enumerate(boxes, 1)
            ]
        (folder / split / '_annotations.coco.json').write_text(json.dumps(document))
    return folder


@pytest.fixture
def tiny(settings: TrainSettings, small: dict[str, Any], tmp_path: Path) -> TrainSettings:
    """A short training of a network that does not count, on the set in `tmp_path`."""
    return replace(settings, data=tmp_path / 'set', cfg_options={**small, **TINY})


SETS: dict[str, tuple[list[str], dict[str, list[Boxes]]]] = {
    'one image': (['a'], {'train': [[(1, BOX)]]}),
    'a thousand classes with a box each': (
        [f'class {i}' for i in range(1000)],
        {
            'train': [[(500 * k + i + 1, BOX) for i in range(500)] for k in range(2)],
            'valid': [[(7, BOX)]],
        },
    ),
    'boxes of 2 px': (['a'], {'train': [[(1, (5 * i, 5 * i, 2, 2)) for i in range(8)]] * 3}),
    'ten thousand boxes in an image': (
        ['a'],
        # Not in validation: pycocotools compares each with 100 detections, in Python, a minute.
        {
            'train': [[(1, (i % 40, i // 250, 10, 8)) for i in range(10_000)]],
            'valid': [[(1, BOX)]],
        },
    ),
    'a class in validation only, of one image': (
        ['a', 'b'],
        {'train': [[(1, BOX)]] * 2, 'valid': [[(1, BOX), (2, BOX)]]},
    ),
}


@pytest.mark.parametrize('name', SETS)
def test_train__gives_a_detector(
    name: str, tiny: TrainSettings, run_dir: Path, tmp_path: Path
) -> None:
    names, splits = SETS[name]
    folder = _write(tmp_path / 'set', names, splits)
    train(tiny)
    (log,) = run_dir.glob('*/*.log')
    assert 'about -' not in log.read_text(encoding='utf-8')  # the estimate of a single step
    (best,) = run_dir.glob('best_*.pth')
    detector = Detector(None, best, device='cpu')
    assert list(detector.classes) == names
    found = detector(str(next(folder.glob('*/*.jpg'))))[0].pred_instances
    assert found.scores.isfinite().all()
    assert found.bboxes.isfinite().all()


def test_dry_run__large_images_without_validation(tiny: TrainSettings, tmp_path: Path) -> None:
    boxes: Boxes = [(1, (1000, 1000, 900, 900))]
    _write(tmp_path / 'set', ['a'], {'train': [boxes] * 3}, size=(5000, 5000))
    summary = dry_run(tiny)
    assert (summary['train_images'], summary['val_images']) == (2, 1)
    assert 'no validation split is given' in ' '.join(summary['remarks'])


def test_dry_run__an_empty_class_name_is_refused(tiny: TrainSettings, tmp_path: Path) -> None:
    _write(tmp_path / 'set', ['a', ''], {'train': [[(1, BOX), (2, BOX)]] * 2})
    with pytest.raises(UserError, match='an object has no class name: give it one') as caught:
        dry_run(tiny)
    assert '\n' not in str(caught.value)
