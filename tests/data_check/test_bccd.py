"""BCCD as published, and twelve faults planted into a copy of its VOC tree."""

import shutil
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from effdet_plugin.data_check import CheckSettings, Report, check_dataset
from support import REPOSITORY, shared_dir

CUSTOM = REPOSITORY / 'configs' / 'efficientdet' / 'custom_coco.py'
# Pairs of one class over IoU 0.85 in train, val and test.
PAIRS = 7
NUM_IMAGES = 364


@pytest.fixture(scope='module')
def bccd() -> Path:
    shared = shared_dir()
    if shared is None or not (shared / 'data' / 'bccd').is_dir():
        pytest.skip('needs the sample data beside the repository')
    return shared / 'data' / 'bccd'


@pytest.fixture
def tree(bccd: Path, tmp_path: Path) -> Path:
    for name in ('Annotations', 'ImageSets', 'JPEGImages'):
        shutil.copytree(bccd / name, tmp_path / 'voc' / name)
    return tmp_path / 'voc'


def _check(data: Path) -> Report:
    return check_dataset(CheckSettings(data, CUSTOM))


def _kinds(report: Report) -> dict[str, int]:
    return {one.kind: one.count for one in report.description.findings}


def test_bccd__coco(bccd: Path) -> None:
    start = time.process_time()
    report = _check(bccd)
    assert _kinds(report) == {'box_twice': PAIRS, 'file_unused': 1}  # the xmls
    assert not report.has_errors
    assert report.reach is not None
    assert report.reach.missed == pytest.approx(0.014, abs=0.001)
    assert 'octave_base_scale=2.25' in report.page()
    assert sum(map(len, filter(None, report.description.splits.values()))) == NUM_IMAGES
    assert time.process_time() - start < 20  # of two cores together; all 364 images


def test_bccd__one_json_of_three(bccd: Path) -> None:
    report = _check(bccd / 'coco' / 'val.json')
    assert set(_kinds(report)) <= {'box_twice'}  # the images of the others are no fault
    assert sum(map(len, filter(None, report.description.splits.values()))) == 87


def test_bccd__voc(tree: Path) -> None:
    assert _kinds(_check(tree)) == {'box_empty': 2, 'box_twice': PAIRS}


class _Xml:
    """An annotation of the tree, changed in place."""

    def __init__(self, tree: Path, stem: str) -> None:
        self.path = tree / 'Annotations' / f'{stem}.xml'
        self.root = ElementTree.parse(self.path)

    def set(self, row: int, **values: object) -> '_Xml':
        """Set corners or the name of an object, counted from 1."""
        element = self.root.findall('object')[row - 1]
        for key, value in values.items():
            place = element if key == 'name' else element.find('bndbox')
            assert place is not None
            child = place.find(key)
            assert child is not None
            child.text = str(value)
        self.root.write(self.path)
        return self


def _plant(tree: Path) -> dict[str, tuple[int, str]]:
    """Plant faults; return the number and a place of each kind."""
    images = tree / 'JPEGImages'
    lists = {
        split: (tree / 'ImageSets' / 'Main' / f'{split}.txt').read_text().split()
        for split in ('train', 'val')
    }
    train, val = lists['train'], lists['val']
    (images / f'{train[0]}.jpg').write_bytes(b'')
    whole = (images / f'{train[1]}.jpg').read_bytes()
    (images / f'{train[1]}.jpg').write_bytes(whole[: len(whole) // 2])
    (images / f'{train[2]}.jpg').unlink()
    (tree / 'Annotations' / f'{train[3]}.xml').write_text('<annotation><size>')
    xml = _Xml(tree, train[4])
    size = xml.root.find('size')
    assert size is not None
    size[0].text, size[1].text = '320', '200'
    xml.root.write(xml.path)
    _Xml(tree, train[5]).set(1, xmax=700)
    _Xml(tree, train[6]).set(1, xmin=50, xmax=50)
    _Xml(tree, train[7]).set(1, xmin='nan')
    _Xml(tree, train[8]).set(1, xmin=200, xmax=100)
    _Xml(tree, train[9]).set(1, name='Platelet')
    xml = _Xml(tree, train[10])
    corners = {key: xml.root.findall('object')[0].findtext(f'bndbox/{key}') for key in _CORNERS}
    name = xml.root.findall('object')[0].findtext('name')
    xml.set(2, name=name, **corners)
    shutil.copy(images / f'{train[11]}.jpg', images / f'{train[12]}.jpg')
    with Image.open(images / f'{train[13]}.jpg') as image:
        image.save(images / f'{val[0]}.jpg', quality=70)
    xml = _Xml(tree, val[1])
    for element in xml.root.findall('object'):
        xml.root.getroot().remove(element)
    xml.root.write(xml.path)
    shutil.copy(images / f'{val[2]}.jpg', images / 'new.jpg')
    with Image.open(images / f'{val[3]}.jpg') as image:
        image.rotate(180).save(images / 'other.jpg')
    return {
        'image_unreadable': (2, f'{train[0]}.jpg'),
        'image_missing': (1, f'{train[2]}.jpg'),
        'file_damaged': (1, f'{train[3]}.xml'),
        'size_other': (1, f'{train[4]}.xml'),
        'box_clipped': (1, f'{train[5]}.xml'),
        'box_empty': (3, f'{train[6]}.xml'),
        'box_not_finite': (1, f'{train[7]}.xml'),
        'box_swapped': (1, f'{train[8]}.xml'),
        'class_alike': (1, "'Platelet'"),
        'box_twice': (PAIRS + 1, f'{train[10]}.jpg'),
        'image_copy': (1, f'{train[12]}.jpg'),
        'image_copy_across': (1, f'{val[0]}.jpg'),
        'image_without_objects': (1, f'{val[1]}.jpg'),
        'image_unused': (3, 'new.jpg'),  # and that of the broken xml
    }


_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def test_bccd__planted_faults(tree: Path) -> None:
    planted = _plant(tree)
    report = _check(tree)
    assert _kinds(report) == {kind: count for kind, (count, _) in planted.items()}
    found = {one.kind: one for one in report.description.findings}
    for kind, (_, place) in planted.items():
        places = ' '.join(' '.join(one) for one in found[kind].places)
        assert place in places, kind
