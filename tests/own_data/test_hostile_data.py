"""Small files that would cost much, never end, or lead out of the folder: one line, at once."""

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_builder import coco, dump, save_image, save_images, text, voc
from PIL import Image

from effdet_plugin.errors import DatasetError, UserError, escaped
from effdet_plugin.files import read_bytes, read_json
from effdet_plugin.images import MAX_PIXELS, check_array, read_image
from effdet_plugin.own_data import read_dataset

ROW = '0 0.5 0.5 0.5 0.5\n'


def _refused(path: Path, *words: str) -> str:
    with pytest.raises(DatasetError) as caught:
        read_dataset(path).check()
    said = str(caught.value)
    assert '\n' not in said
    assert len(said) < 1500
    for word in words:
        assert word in said
    return said


def _yolo(root: Path, yaml: str) -> None:
    save_image(root / 'images/0.png')
    text(root / 'labels/0.txt', ROW)
    text(root / 'data.yaml', yaml)


YAMLS = {
    'bomb': 'a: &a [x, x]\n' + ''.join(
        f'b{n}: &b{n} [*{"a" if not n else f"b{n - 1}"}, *{"a" if not n else f"b{n - 1}"}]\n'
        for n in range(60)
    ) + 'train: images\nnames: *b59\n',
    'itself': 'train: images\nnames: &a [x, *a]\n',
    'deep': 'train: images\nnames: ' + '[' * 5000 + ']' * 5000,
    'map': 'a: &a {b: c}\ntrain: images\nnames: *a\n',
}  # fmt: skip


@pytest.mark.parametrize('name', YAMLS)
def test_yaml(name: str, tmp_path: Path) -> None:
    _yolo(tmp_path, YAMLS[name])
    _refused(tmp_path, 'data.yaml')


def test_yaml__alias_of_a_value_is_read(tmp_path: Path) -> None:
    _yolo(tmp_path, 'train: &all images\nval: *all\nnames: [circle]\n')
    assert len(read_dataset(tmp_path).check().train) == 1


def test_yaml__many_names_take_no_time(tmp_path: Path) -> None:
    _yolo(tmp_path, 'train: images\nnames: a.names\n')
    text(tmp_path / 'a.names', 'same\n' * 50_000)
    assert read_dataset(tmp_path).classes == ('same',)


ENCODINGS = [
    'undefined', 'utf-8 ', 'idna', 'punycode', 'zip', 'rot13', 'a' * 100_000,
    'utf-8\x00', '\x1b[2J', 'gb\u2028k',
]  # fmt: skip


@pytest.mark.parametrize('encoding', ENCODINGS, ids=range(len(ENCODINGS)))
def test_xml__encodings(encoding: str, tmp_path: Path) -> None:
    save_image(tmp_path / '0.png')
    voc(tmp_path / '0.xml', '0.png')
    plain = (tmp_path / '0.xml').read_text()
    text(tmp_path / '0.xml', f'<?xml version="1.0" encoding="{encoding}"?>{plain}')
    said = _refused(tmp_path, '0.xml')
    assert said.isprintable()


def test_xml__entities(tmp_path: Path) -> None:
    save_image(tmp_path / '0.png')
    entities = ''.join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(12))
    head = f'<!DOCTYPE a [<!ENTITY e0 "x">{entities}]>'
    text(tmp_path / '0.xml', f'{head}<annotation><filename>&e12;</filename></annotation>')
    _refused(tmp_path, '0.xml')


def _change(key: str, value: Any, part: str = 'annotations') -> Callable[[dict[str, Any]], None]:
    return lambda document: document[part][0].update({key: value})


JSONS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    'huge box': (_change('bbox', [10**4000, 0, 1, 1]), 'infinite'),
    'nan box': (_change('bbox', [float('nan'), 0, 1, 1]), 'NaN'),
    'far box': (_change('bbox', [1e30, 0, 1, 1]), 'infinite'),
    'huge category': (_change('category_id', 10**4000), 'category'),
    'huge image': (_change('image_id', -(10**4000)), 'image id'),
    'huge image id': (_change('id', 10**4000, 'images'), 'id'),
    'long class': (_change('name', 'x' * 1_000_000, 'categories'), '200 letters'),
    'escapes': (_change('file_name', '\x1b[31m\u202egone.png', 'images'), r'\x1b[31m\u202egone'),
}


@pytest.mark.parametrize('name', JSONS)
def test_json(name: str, tmp_path: Path) -> None:
    change, word = JSONS[name]
    save_image(tmp_path / '0.png')
    document = coco(['0.png'])
    change(document)
    dump(tmp_path / 'a.json', document)
    said = _refused(tmp_path, 'a.json' if name != 'long class' else tmp_path.name, word)
    assert said.isprintable()


@pytest.mark.parametrize(
    'content', ['[' * 200_000, '{"a":' * 200_000, '1' * 5000, '{"images": [1e']
)
def test_json__depth_and_numbers(content: str, tmp_path: Path) -> None:
    text(tmp_path / 'a.json', content)
    with pytest.raises(DatasetError, match=r'a\.json') as caught:
        read_json(tmp_path / 'a.json')
    assert '\n' not in str(caught.value)


def test_long_class_names__of_the_other_readers(tmp_path: Path) -> None:
    long = 'y' * 1_000_000
    _yolo(tmp_path / 'yolo', f'train: images\nnames: [{long}]\n')
    save_image(tmp_path / 'voc/0.png')
    voc(tmp_path / 'voc/0.xml', '0.png', names=[long, 'b'])
    save_image(tmp_path / 'csv/0.png')
    text(tmp_path / 'csv/a.csv', f'image,xmin,ymin,xmax,ymax,label\n0.png,1,1,9,9,{long[:9999]}\n')
    for name in ('yolo', 'voc', 'csv'):
        _refused(tmp_path / name, '200 letters')


def test_boxes__so_many_in_one_image(tmp_path: Path) -> None:
    _yolo(tmp_path, 'train: images\nnames: [circle]\n')
    rows = (f'0 0.5 0.5 0.{n:06} 0.4\n' for n in range(100_000, 110_001))
    text(tmp_path / 'labels/0.txt', ''.join(rows))
    _refused(tmp_path, '10001 boxes', 'tiles')


@pytest.mark.parametrize('name', ['pipe', 'device', 'folder'])
@pytest.mark.parametrize('place', ['images/0.png', 'labels/0.txt', 'data.yaml'])
def test_what_has_no_end_is_not_opened(name: str, place: str, tmp_path: Path) -> None:
    _yolo(tmp_path, 'train: images\nnames: [circle]\n')
    path = tmp_path / place
    path.unlink()
    if name == 'pipe':
        os.mkfifo(path)
    elif name == 'device':
        path.symlink_to('/dev/zero')
    else:
        path.mkdir()
    with pytest.raises(DatasetError):
        read_bytes(path)
    with pytest.raises(DatasetError, match='regular'):
        read_image(path)
    if name != 'folder':
        _refused(tmp_path)


def _png(width: int, height: int) -> bytes:
    """A PNG of one bit a pixel, whose few bytes promise many rows."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', check)

    header = struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000))
    signature = b'\x89PNG\r\n\x1a\n'
    return signature + chunk(b'IHDR', header) + chunk(b'IDAT', pixels) + chunk(b'IEND', b'')


def _bmp(width: int, height: int) -> bytes:
    """A run-length coded BMP without a run."""
    info = struct.pack('<IiiHHIIiiII', 40, width, height, 1, 8, 1, 4, 0, 0, 2, 0)
    return b'BM' + struct.pack('<IHHI', 74, 0, 0, 62) + info + bytes(8) + bytes(4)


LARGE = {
    '1.png': _png(20_000, 20_000), 'wide.png': _png(2**31 - 1, 1),
    '2.bmp': _bmp(32_000, 32_000), '3.ppm': b'P6 20000 20000 255\n12',
    '4.pbm': b'P4 60000 60000\n12',
}  # fmt: skip


@pytest.mark.parametrize('name', LARGE)
def test_pixels_are_bounded_before_decoding(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(LARGE[name])
    dump(tmp_path / 'a.json', coco([name]))
    _refused(tmp_path, name, f'{MAX_PIXELS // 10**6} million pixels')
    with pytest.raises(DatasetError, match='million pixels'):
        read_image(tmp_path / name)


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'tif', 'bmp', 'gif', 'jp2', 'avif'])
def test_half_an_image(suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f'half.{suffix}'
    Image.effect_noise((200, 200), 90).convert('RGB').save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    dump(tmp_path / 'a.json', coco([path.name]))
    _refused(tmp_path, path.name)
    with pytest.raises(DatasetError, match=path.name) as caught:
        read_image(path)
    assert '\n' not in str(caught.value)
    assert capfd.readouterr().err == ''


def test_half_a_jpeg_with_a_whole_thumbnail(tmp_path: Path) -> None:
    """The end mark of the thumbnail is not that of the image."""
    path = tmp_path / 'half.jpg'
    Image.effect_noise((90, 90), 90).save(path)
    path.write_bytes(path.read_bytes()[:-300] + b'\xff\xd9' + bytes(100))
    Image.effect_noise((90, 90), 90).save(tmp_path / 'thumb.jpg')
    whole = path.read_bytes()
    cut = whole[:2] + b'\xff\xe1' + struct.pack('>H', 52) + b'\xff\xd9' * 25 + whole[2:900]
    path.write_bytes(cut)
    with pytest.raises(DatasetError):
        read_image(path)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """An image and a text beside the data folder."""
    save_image(tmp_path / 'secret/secret.png')
    text(tmp_path / 'secret/secret.txt', 'root:x:0:0\n')
    return tmp_path / 'secret'


def test_paths__of_coco_voc_and_csv(tmp_path: Path, outside: Path) -> None:
    for number, name in enumerate(('../secret/secret.png', str(outside / 'secret.png'))):
        roots = [tmp_path / f'{kind}{number}' for kind in ('coco', 'voc', 'csv')]
        for root in roots:
            save_images(root, ['0.png'])
        dump(roots[0] / 'a.json', coco(['0.png', name]))
        voc(roots[1] / '0.xml', '0.png')
        voc(roots[1] / '1.xml', name)
        text(roots[2] / 'a.csv', f'image,xmin,ymin,xmax,ymax,label\n{name},1,1,9,9,a\n')
        for root in roots:
            _refused(root, 'leads out of the data folder')


def test_paths__links_of_the_user_are_followed(tmp_path: Path, outside: Path) -> None:
    root = tmp_path / 'data'
    root.mkdir()
    (root / 'images').symlink_to(outside)
    dump(root / 'a.json', coco(['images/secret.png']))
    assert len(read_dataset(root).check().train) == 1
    dump(root / 'a.json', coco([str(outside / 'secret.png')]))
    assert len(read_dataset(root).check().train) == 1


@pytest.mark.parametrize('entry', ['../secret', '{secret}', '{secret}/secret.txt', '/'])
def test_paths__of_a_yaml(entry: str, tmp_path: Path, outside: Path) -> None:
    root = tmp_path / 'data'
    _yolo(root, f'train: {entry.format(secret=outside)}\nnames: [circle]\n')
    said = _refused(root, 'leads out of the data folder', '--data', 'data.yaml')
    assert 'root:x' not in said


def test_paths__of_a_yaml_that_the_user_names(tmp_path: Path, outside: Path) -> None:
    root = tmp_path / 'data'
    _yolo(root, f'train: {outside}\nnames: [circle]\n')
    text(outside / 'secret.txt', ROW)
    description = read_dataset(root / 'data.yaml').check()
    assert description.train.num_targets == 1
    assert any('outside' in line for line in description.remarks())


def test_paths__lines_of_other_files_are_not_quoted(tmp_path: Path, outside: Path) -> None:
    root = tmp_path / 'data'
    _yolo(root, f'train: {outside}/secret.txt\nnames: [circle]\n')
    said = _refused(root / 'data.yaml', 'secret.txt, line 1')
    assert 'root:x' not in said


def test_escaped() -> None:
    assert escaped('a\x1b[2Jb\nc\u202ed é ☃') == 'a\\x1b[2Jb\\nc\\u202ed é ☃'
    assert str(UserError('x\r\x07')) == 'x\\r\\x07'


@pytest.mark.parametrize(
    'array',
    [
        np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint16), np.zeros((4, 4, 3), bool),
        np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8),
    ],
)  # fmt: skip
def test_arrays_of_unknown_scale(array: np.ndarray) -> None:
    with pytest.raises(DatasetError, match='uint8'):
        check_array(array)


def test_arrays_of_images() -> None:
    check_array(np.zeros((4, 5, 3), np.uint8))


def test_json__a_list_of_nothing_known(tmp_path: Path) -> None:
    text(tmp_path / 'a.json', json.dumps([{'\x1b]0;x\x07': 1}]))
    assert _refused(tmp_path).isprintable()
