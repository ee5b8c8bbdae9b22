"""Pascal VOC that a config reads by mmdet's datasets is checked as that of ``--data`` is."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from layout_builder import CLASSES, HEIGHT, WIDTH, save_image, text, voc
from mmengine.config import Config

from effdet_plugin.errors import DatasetError
from effdet_plugin.own_data import check_annotation_files

NAMES = ('0', '1', '2')


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    for name in NAMES:
        save_image(tmp_path / f'VOC/JPEGImages/{name}.jpg')
        voc(tmp_path / f'VOC/Annotations/{name}.xml', f'{name}.jpg')
    text(tmp_path / 'VOC/ImageSets/Main/train.txt', '\n'.join(NAMES))
    source = dict(
        type='VOCDataset',
        data_root=str(tmp_path),
        ann_file='VOC/ImageSets/Main/train.txt',
        data_prefix=dict(sub_data_root='VOC/'),
        metainfo=dict(classes=CLASSES),
    )
    loader = dict(dataset=dict(type='EfficientDetDataset', dataset=source))
    return Config(dict(model=dict(bbox_head=dict(num_classes=2)), train_dataloader=loader))


def large_png(root: Path) -> None:
    """A header of 32,000 x 32,000 pixels, one bit each; the pixels would be a gigabyte."""
    head = b'IHDR' + struct.pack('>IIBBBBB', 32_000, 32_000, 1, 0, 0, 0, 0)
    pixels = b'IDAT' + zlib.compress(b'')
    chunks = b''.join(
        struct.pack('>I', len(one) - 4) + one + struct.pack('>I', zlib.crc32(one))
        for one in (head, pixels, b'IEND')
    )
    (root / 'VOC/JPEGImages/1.jpg').write_bytes(b'\x89PNG\r\n\x1a\n' + chunks)


def sides_as_corners(root: Path) -> None:
    for name in NAMES:
        voc(root / f'VOC/Annotations/{name}.xml', f'{name}.jpg', [(0, (60, 34, -30, -6))] * 2)


def other_names(root: Path) -> None:
    for name in NAMES:
        voc(root / f'VOC/Annotations/{name}.xml', f'{name}.jpg', names=('cat', 'dog'))


def misspelt(root: Path) -> None:
    for name in NAMES:
        voc(root / f'VOC/Annotations/{name}.xml', f'{name}.jpg', names=('circle', 'Squares'))


def without(path: str) -> Callable[[Path], Any]:
    return lambda root: (root / path).unlink()


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (large_png, r'JPEGImages/1\.jpg.*million pixels'),
        (without('VOC/JPEGImages/2.jpg'), r'JPEGImages/2\.jpg.*no such file'),
        (without('VOC/Annotations/2.xml'), r'Annotations/2\.xml.*1 of the 3.*sub_data_root'),
        (without('VOC/ImageSets/Main/train.txt'), r'train\.txt.*no such annotation file'),
        (sides_as_corners, 'x, y, width, height, which all of them fit'),
        (other_names, "cat, dog and none of the config's .circle, square"),
        (misspelt, "'Squares'.*not 'square'"),
    ],
)
def test_check__refuses(cfg: Config, tmp_path: Path, change: Any, words: str) -> None:
    check_annotation_files(cfg)
    change(tmp_path)
    with pytest.raises(DatasetError, match=words) as error:
        check_annotation_files(cfg)
    assert '\n' not in str(error.value)


def test_check__some_of_the_classes(cfg: Config) -> None:
    """mmdet passes over boxes of the others; the order of the names is the config's."""
    source = cfg.train_dataloader.dataset.dataset
    for classes in (('square',), ('square', 'circle'), ('line', 'circle')):
        source.metainfo.classes = classes
        cfg.model.bbox_head.num_classes = len(classes)
        assert check_annotation_files(cfg).remarks == []


def test_check__remarks(cfg: Config, tmp_path: Path) -> None:
    voc(tmp_path / 'VOC/Annotations/1.xml', '1.jpg', [(0, (0, 0, WIDTH + 9, HEIGHT))])
    (remark,) = check_annotation_files(cfg).remarks
    assert '1.xml, object 1: a box reaches outside its image' in remark


@pytest.mark.parametrize(
    ('name', 'words'),
    [('x' * 5000, 'there is no such annotation file'), ('../../VOC/Annotations/0', 'leads out')],
)
def test_names__too_long_or_outside_are_one_line(
    cfg: Config, tmp_path: Path, name: str, words: str
) -> None:
    text(tmp_path / 'VOC/ImageSets/Main/train.txt', f'0\n{name}\n')
    with pytest.raises(DatasetError, match=words) as error:
        check_annotation_files(cfg)
    assert len(str(error.value)) < 1000
