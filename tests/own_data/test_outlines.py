"""Boxes that are there twice, and boxes beside polygons or masks that contradict them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_builder import coco, dump, save_image, save_images, voc
from pycocotools import mask as coco_mask

from effdet_plugin.errors import DatasetError
from effdet_plugin.own_data import check_annotation_files, read_dataset
from effdet_plugin.own_data.outlines import extent_of

NAMES = [f'{number}.png' for number in range(6)]
# x, y, width, height in images of 96 x 64.
BOXES = [(4.0, 5.0, 30.0, 40.0), (60.0, 6.0, 32.0, 50.0)]
Entry = dict[str, Any]


def _polygon(x: float, y: float, width: float, height: float) -> list[list[float]]:
    """A diamond."""
    right, bottom = x + width, y + height
    return [[x, y + height / 2, x + width / 2, y, right, y + height / 2, x + width / 2, bottom]]


def _write(folder: Path, change: Callable[[Entry], Any], every: int = 1) -> None:
    save_images(folder / 'images', NAMES)
    document = coco(NAMES, {place: list(enumerate(BOXES)) for place in range(len(NAMES))})
    for place, entry in enumerate(document['annotations']):
        entry['segmentation'] = _polygon(*entry['bbox'])
        if place % every == 0:
            change(entry)
    dump(folder / 'a.json', document)


def _said(folder: Path) -> list[str]:
    return read_dataset(folder).check().remarks()


def _moved(entry: Entry) -> None:
    x, y, width, height = entry['bbox']
    entry['segmentation'] = _polygon(x / 8, y / 8, width / 8, height / 8)


def _mask_of(entry: Entry, compressed: bool = True) -> None:
    x, y, width, height = map(int, entry['bbox'])
    pixels = np.zeros((64, 96), np.uint8, order='F')
    pixels[y : y + height, x : x + width] = 1
    packed = coco_mask.encode(pixels)
    counts: Any = packed['counts'].decode()
    if not compressed:
        flat = pixels.ravel(order='F')
        changes = np.flatnonzero(np.diff(np.concatenate([[0], flat, [2]])))
        counts = np.diff(np.concatenate([[0], changes])).tolist()
    entry['segmentation'] = {'size': [64, 96], 'counts': counts}


@pytest.mark.parametrize(
    'change',
    [
        lambda entry: None,
        _mask_of,
        lambda entry: _mask_of(entry, compressed=False),
        lambda entry: entry.update(segmentation=[]),
        lambda entry: entry.update(segmentation=[[]]),
        lambda entry: entry.update(segmentation=[[7, 7]]),
        lambda entry: entry.update(segmentation={'size': [64, 96], 'counts': '0'}),
        lambda entry: entry.update(segmentation='none'),
        # What is seen of an object that is covered in part.
        lambda entry: entry['segmentation'][0].__setitem__(3, entry['bbox'][1] + 10),
    ],
)
def test_outlines__that_fit_or_say_nothing(change: Callable[[Entry], Any], tmp_path: Path) -> None:
    _write(tmp_path, change)
    assert _said(tmp_path) == []


@pytest.mark.parametrize(
    ('change', 'every', 'share'),
    [
        (_moved, 1, '12 of 12'),
        (_moved, 4, '3 of 12'),
        (_moved, 12, '1 of 12'),
        (lambda e: e.update(segmentation=[[x / 96 for x in e['segmentation'][0]]]), 1, '12 of 12'),
        (lambda e: (e.update(bbox=[30, 20, 9, 9]), _mask_of(e), e.update(bbox=[1, 1, 9, 9])), 1,
         '12 of 12'),
        (lambda e: (e.update(bbox=[30, 20, 9, 9]), _mask_of(e, False), e.update(bbox=[1, 1, 9, 9])),
         2, '6 of 12'),
    ],
)  # fmt: skip
def test_outlines__elsewhere(
    change: Callable[[Entry], Any], every: int, share: str, tmp_path: Path
) -> None:
    _write(tmp_path, change, every)
    told = [line for line in _said(tmp_path) if 'polygons or masks' in line]
    assert len(told) == 1
    assert f'a.json, annotation 1001: the boxes of {share} objects' in told[0]
    assert 'taken as written' in told[0]


def _corners(entry: Entry) -> None:
    x, y, width, height = entry['bbox']
    entry['bbox'] = [x, y, x + width, y + height]


def _centre(entry: Entry) -> None:
    x, y, width, height = entry['bbox']
    entry['bbox'] = [x + width / 2, y + height / 2, width, height]


def _rows(entry: Entry) -> None:
    entry['bbox'] = [entry['bbox'][place] for place in (1, 0, 3, 2)]


@pytest.mark.parametrize(
    ('change', 'likely'),
    [(_corners, 'corners (x1, y1, x2, y2)'), (_centre, 'centre x, y'), (_rows, 'y, x, height')],
)
def test_outlines__tell_the_form_of_the_boxes(
    change: Callable[[Entry], Any], likely: str, tmp_path: Path
) -> None:
    """The images are so large that all boxes lie in them in any form."""
    _write(tmp_path, change)
    for name in NAMES:
        save_image(tmp_path / 'images' / name, (960, 640))
    path = tmp_path / 'a.json'
    text = path.read_text().replace('"width": 96', '"width": 960')
    path.write_text(text.replace('"height": 64', '"height": 640'))
    errors = [one.message for one in read_dataset(tmp_path).findings if one.is_error]
    assert any('polygons or masks' in line and likely in line for line in errors)


def test_outlines__box_of_a_mask_alone(tmp_path: Path) -> None:
    def change(entry: Entry) -> None:
        _mask_of(entry)
        del entry['bbox']

    _write(tmp_path, change)
    description = read_dataset(tmp_path).check()
    np.testing.assert_array_equal(
        description.train.images[0].boxes, [(x, y, x + w, y + h) for x, y, w, h in BOXES]
    )


@pytest.mark.parametrize('seed', range(20))
def test_extent__as_pycocotools_has_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 300, 2)
    pixels = random.random((height, width)) < random.choice([0.001, 0.05, 0.5, 0.97])
    pixels[:, : random.integers(0, width)] = 0
    pixels[: random.integers(0, height)] = 0
    packed: Any = coco_mask.encode(np.asfortranarray(pixels, dtype=np.uint8))
    mask = {'size': [int(height), int(width)], 'counts': packed['counts'].decode()}
    x, y, w, h = coco_mask.toBbox(packed)
    assert extent_of(mask) == ((x, y, x + w, y + h) if pixels.any() else None)


@pytest.mark.parametrize(
    'mask',
    [
        {},
        {'size': [4, 4]},
        {'size': [4, 4], 'counts': ''},
        {'size': [4, 4], 'counts': 'PPP'},
        {'size': [4, 4], 'counts': 'P' * 40 + '0'},
        {'size': [4, 4], 'counts': 'x\n'},
        {'size': [4, 4], 'counts': [1, 2, 10**4000]},
        {'size': [4, 4], 'counts': [2**39] * 5},
        {'size': [4, 4], 'counts': [1, -5, 3]},
        {'size': [4, 4], 'counts': [1, 'a']},
        {'size': [4, 4], 'counts': [17]},
        {'size': ['4', None], 'counts': [4, 4]},
        {'size': [10**9, 10**9], 'counts': 'oooooooo' * 1000},
        {'size': 7, 'counts': {}},
    ],
)
def test_extent__masks_without_sense(mask: Any) -> None:
    assert extent_of(mask) is None


def test_same_box__coco(tmp_path: Path) -> None:
    save_images(tmp_path / 'images', NAMES)
    boxes = [(0, BOXES[0]), (0, BOXES[0]), (0, BOXES[0]), (1, BOXES[0]), (0, BOXES[1])]
    dump(tmp_path / 'a.json', coco(NAMES, {0: boxes, 1: boxes[-1:]}))
    (told,) = (line for line in _said(tmp_path) if 'twice' in line)
    assert told.startswith('a.json, annotation 1002: a box is there twice')
    assert '2 cases in all' in told


def test_same_box__voc(tmp_path: Path) -> None:
    save_images(tmp_path, NAMES[:1])
    voc(tmp_path / '0.xml', NAMES[0], [(0, BOXES[0]), (1, BOXES[0]), (0, BOXES[0])])
    (told,) = (line for line in _said(tmp_path) if 'twice' in line)
    assert 'object 3' in told


def test_same_box__crowds_are_left_out(tmp_path: Path) -> None:
    _write(tmp_path, lambda entry: entry.update(iscrowd=1, bbox=[1, 1, 9, 9], segmentation=[]), 2)
    assert not any('twice' in line for line in _said(tmp_path))


def test_config__is_told_of_both(tmp_path: Path) -> None:
    from mmengine.config import Config

    def change(entry: Entry) -> None:
        _moved(entry)
        entry.update(bbox=list(BOXES[0]), category_id=1)

    _write(tmp_path, change)
    source = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='a.json',
        data_prefix=dict(img='images'),
        metainfo=dict(classes=('circle', 'square')),
    )
    cfg = Config(dict(model={}, train_dataloader=dict(dataset=source)))
    remarks = '\n'.join(check_annotation_files(cfg, folder=tmp_path / 'copies').remarks)
    assert 'the boxes of 12 of 12 objects' in remarks
    assert 'a box is there twice (one image, class and place): both are trained on (6' in remarks


def test_boxes_in_the_form_of_corners__are_refused(tmp_path: Path) -> None:
    _write(tmp_path, _corners)
    with pytest.raises(DatasetError, match='corners'):
        read_dataset(tmp_path).check()
