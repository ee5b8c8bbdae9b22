"""Damaged files never give anything but a description that can be used, or a DatasetError."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_builder import BOTH, coco, dump, save_images, text, voc, yolo
from mmdet.registry import DATASETS
from mmengine.config import Config

from effdet_plugin.errors import DatasetError, UserError
from effdet_plugin.own_data import (
    DatasetDescription,
    check_annotation_files,
    read_dataset,
    with_validation,
    write_coco,
)

NAMES = ['0.jpg', '1.jpg', '2.jpg']
GOOD = coco(NAMES)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(
        ['1', '0.jpg', '../1.jpg', 'http://[x', 1e308, 10**30, '\ud800', '\x00', '\n']
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images; each test puts its annotations beside them."""
    root = tmp_path_factory.mktemp('damage')
    save_images(root / 'images', NAMES)
    return root


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """The good document with up to three values replaced, removed or repeated."""
    document = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        node: Any = document
        while isinstance(node, dict | list) and node:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = draw(st.sampled_from(keys))
            if not isinstance(node[key], dict | list) or draw(st.integers(0, 3)) == 0:
                _damage(draw, node, key)
                break
            node = node[key]
    return document


def _damage(draw: st.DrawFn, node: Any, key: Any) -> None:
    how = draw(st.sampled_from(['replace', 'remove', 'repeat']))
    if how == 'remove':
        del node[key]
    elif how == 'repeat' and isinstance(node, list):
        node.append(node[key])
    else:
        node[key] = draw(VALUES)


def _assert_usable(description: DatasetDescription, folder: Path) -> None:
    assert description.train.num_targets
    for split in filter(None, description.splits.values()):
        for image in split:
            limits = (image.width, image.height) * 2
            assert np.isfinite(image.boxes).all()
            assert (image.boxes >= 0).all()
            assert (image.boxes <= limits).all()
            assert ((image.boxes[:, 2:] - image.boxes[:, :2]) >= 1).all()
            assert (image.labels >= 0).all()
            assert (image.labels < len(description.classes)).all()
    for path in write_coco(description, folder).values():
        document = json.loads(path.read_text(encoding='utf-8'))
        ids = [annotation['id'] for annotation in document['annotations']]
        assert len(set(ids)) == len(ids)


def _read(path: Path, out: Path) -> None:
    said = []
    try:
        description = with_validation(read_dataset(path).check())
    except DatasetError as error:
        said.append(str(error))
    else:
        said.extend(description.remarks())
        _assert_usable(description, out)
    for line in said:
        assert '\n' not in line
        assert line.encode('utf-8')  # can be printed


@given(document=damaged())
def test_coco__damaged_values(
    folder: Path, document: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dump(folder / 'annotations.json', document)
    _read(folder, tmp_path_factory.getbasetemp() / 'out')


@settings(max_examples=40)  # building takes long
@given(document=damaged())
def test_config__damaged_values(folder: Path, document: Any) -> None:
    """mmdet finds a box in what the check lets pass."""
    dump(folder / 'c.json', document)
    source = dict(
        type='CocoDataset',
        data_root=str(folder),
        ann_file='c.json',
        data_prefix=dict(img='images'),
        metainfo=dict(classes=('circle', 'square')),
    )
    cfg = Config(dict(model={}, train_dataloader=dict(dataset=source), work_dir=str(folder / 'w')))
    try:
        checked = check_annotation_files(cfg)
    except UserError:
        return
    checked.write()
    assert all(line.isprintable() for line in checked.remarks)
    dataset = DATASETS.build({**cfg.train_dataloader.dataset, 'pipeline': []})
    found = [dataset.get_data_info(number)['instances'] for number in range(len(dataset))]
    assert sum(map(len, found)) > 0


@given(cut=st.integers(0, 1500), tail=st.binary(max_size=4))
def test_coco__cut_text(
    folder: Path, cut: int, tail: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = json.dumps(GOOD).encode()[:cut] + tail
    (folder / 'annotations.json').write_bytes(content)
    _read(folder / 'annotations.json', tmp_path_factory.getbasetemp() / 'out')


ROWS = st.lists(
    st.floats() | st.integers() | st.sampled_from(['', 'a', '-1', '1e999', '0.5']), max_size=12
)


@given(rows=st.lists(ROWS, max_size=3))
def test_yolo__any_rows(rows: list[list[object]], tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp('yolo')
    save_images(root / 'images', NAMES[:2])
    yolo(root / 'labels/0.txt', BOTH)
    text(root / 'labels/1.txt', '\n'.join(' '.join(map(str, row)) for row in rows))
    text(root / 'classes.txt', 'circle\nsquare\n')
    _read(root, root / 'out')


@given(old=st.sampled_from(['circle', '<xmin>10', 'bndbox', '>', '96']), new=st.text(max_size=5))
def test_voc__any_words(old: str, new: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp('voc')
    save_images(root, NAMES[:2])
    voc(root / '0.xml', '0.jpg')
    voc(root / '1.xml', '1.jpg')
    path = root / '1.xml'
    content = path.read_text(encoding='utf-8').replace(old, new)
    path.write_bytes(content.encode('utf-8', 'surrogatepass'))
    _read(root, root / 'out')
