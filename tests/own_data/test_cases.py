"""Sets that were once read wrong without a word: the right boxes, or one line that says why not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from layout_builder import HEIGHT, ORIENTATION, WIDTH, coco, dump, save_image, text, voc
from PIL import Image

from effdet_plugin.errors import DatasetError
from effdet_plugin.images import read_image
from effdet_plugin.own_data import DatasetDescription, read_dataset
from support import shared_dir

Boxes = list[tuple[float, float, float, float]]
# Eight boxes of an image, x1, y1, x2, y2 in pixels: one in each corner, none in all forms at once.
CORNERS: Boxes = [
    (4, 6, 20, 30),
    (60, 2, 90, 22),
    (8, 40, 30, 62),
    (50, 34, 94, 60),
    (30, 20, 52, 44),
    (70, 30, 88, 50),
    (40, 4, 58, 18),
    (12, 22, 44, 38),
]
SIZE = np.array([WIDTH, HEIGHT])


def _found(root: Path) -> tuple[DatasetDescription | None, str]:
    """The description, None if it is refused, and what is said."""
    try:
        description = read_dataset(root).check()
    except DatasetError as error:
        return None, str(error)
    return description, '\n'.join(description.remarks())


def _refused(root: Path, *words: str) -> None:
    description, said = _found(root)
    assert description is None, said
    assert '\n' not in said
    for word in words:
        assert word in said


def _read(root: Path, *words: str) -> DatasetDescription:
    description, said = _found(root)
    assert description is not None, said
    for word in words:
        assert word in said
    return description


def _yolo(root: Path, rows: list[Any]) -> None:
    """Two images, half of the rows each."""
    half = len(rows) // 2
    for name, part in (('0', rows[:half]), ('1', rows[half:])):
        save_image(root / f'images/{name}.png')
        lines = (f'0 {" ".join(f"{value:.6f}" for value in row)}' for row in part)
        text(root / f'labels/{name}.txt', '\n'.join(lines))
    text(root / 'classes.txt', 'circle\n')


def _centres(boxes: Boxes) -> list[list[float]]:
    corners = np.array(boxes) / np.tile(SIZE, 2)
    low, high = corners[:, :2], corners[:, 2:]
    return np.hstack([(low + high) / 2, high - low]).tolist()


def _coco(root: Path, boxes: list[Any], **extra: Any) -> None:
    save_image(root / '0.png')
    document = coco(['0.png'], {0: [(0, box) for box in boxes]})
    for annotation in document['annotations']:
        annotation.update(extra)
    dump(root / 'a.json', document)


def _voc(root: Path, boxes: list[Any]) -> None:
    save_image(root / '0.png')
    as_sides = [(0, (x1, y1, x2 - x1, y2 - y1)) for x1, y1, x2, y2 in boxes]
    voc(root / '0.xml', '0.png', as_sides)


def _sides(boxes: Boxes) -> list[tuple[float, float, float, float]]:
    return [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes]


def _csv(root: Path, boxes: list[Any]) -> None:
    save_image(root / '0.png')
    rows = [','.join(map(str, ('0.png', *box, 'circle'))) for box in boxes]
    text(root / 'a.csv', '\n'.join(['image,xmin,ymin,xmax,ymax,label', *rows]))


# The right form, then others: how a set is written, and what the line must name.
FORMS: dict[str, tuple[Callable[[Path, list[Any]], None], list[Any], str]] = {
    'yolo': (_yolo, _centres(CORNERS), ''),
    'yolo_corners': (_yolo, (np.array(CORNERS) / np.tile(SIZE, 2)).tolist(), 'corners (x1'),
    'coco': (_coco, _sides(CORNERS), ''),
    'coco_corners': (_coco, CORNERS, 'corners (x1'),
    'coco_parts': (_coco, (np.array(_sides(CORNERS)) / np.tile(SIZE, 2)).tolist(), '0 to 1'),
    'coco_negative_sides': (
        _coco, [(x2, y2, x1 - x2, y1 - y2) for x1, y1, x2, y2 in CORNERS], '8 of 8',
    ),
    'voc': (_voc, CORNERS, ''),
    'voc_sides': (_voc, _sides(CORNERS), 'x, y, width, height'),
    'voc_parts': (_voc, (np.array(CORNERS) / np.tile(SIZE, 2)).tolist(), '0 to 1'),
    'csv': (_csv, CORNERS, ''),
    'csv_sides': (_csv, _sides(CORNERS), 'x, y, width, height'),
}  # fmt: skip


@pytest.mark.parametrize('name', FORMS)
def test_form(name: str, tmp_path: Path) -> None:
    write, numbers, word = FORMS[name]
    write(tmp_path, numbers)
    if word:
        _refused(tmp_path, word, ' of 8')
        return
    description = _read(tmp_path)
    found = np.vstack([image.boxes for image in description.train])
    np.testing.assert_allclose(found, CORNERS, atol=1e-3)
    assert not [one for one in description.findings if one.kind.startswith(('form', 'box'))]


def test_form__one_slip_is_mended_with_a_remark(tmp_path: Path) -> None:
    x1, y1, x2, y2 = CORNERS[0]
    _voc(tmp_path, [(x2, y1, x1, y2), *CORNERS[1:]])
    description = _read(tmp_path, 'corners swapped')
    np.testing.assert_allclose(description.train.images[0].boxes, CORNERS)


def test_coco__rotated_rectangles_are_counted(tmp_path: Path) -> None:
    _coco(tmp_path, _sides(CORNERS), attributes={'rotation': 45.0, 'occluded': False})
    description = _read(tmp_path, 'rotated (by 45 degrees)', '8 cases')
    np.testing.assert_allclose(description.train.images[0].boxes, CORNERS)


def test_voc__rotated_rectangles_are_counted(tmp_path: Path) -> None:
    save_image(tmp_path / '0.png')
    turned = '<attributes><attribute><name>rotation</name><value>90.0</value></attribute>'
    voc(tmp_path / '0.xml', '0.png', extra=f'{turned}</attributes>')
    _read(tmp_path, 'rotated (by 90 degrees)', '2 cases')


def test_yolo__angle_is_no_confidence(tmp_path: Path) -> None:
    _yolo(tmp_path, [[*row, 45.0] for row in _centres(CORNERS)])
    _refused(tmp_path, '45', 'angle', '8 cases')


def test_yolo__key_points_without_kpt_shape(tmp_path: Path) -> None:
    rows = [[*row, *row[:2], 2, row[0], row[1] + row[3] / 2, 1] for row in _centres(CORNERS)]
    _yolo(tmp_path, rows)
    _refused(tmp_path, 'kpt_shape', 'all 8 rows have 11 numbers')


def test_yolo__polygons_of_one_length_are_polygons(tmp_path: Path) -> None:
    rows = [[x1, y1, x2, y1, x2, y2, x1, y2, x1, (y1 + y2) / 2] for x1, y1, x2, y2 in CORNERS]
    _yolo(tmp_path, (np.array(rows) / np.tile(SIZE, 5)).tolist())
    found = np.vstack([image.boxes for image in _read(tmp_path).train])
    np.testing.assert_allclose(found, CORNERS, atol=1e-3)


def test_images_without_objects_are_counted(tmp_path: Path) -> None:
    _yolo(tmp_path, _centres(CORNERS))
    for name in ('blank', 'none'):
        save_image(tmp_path / f'images/{name}.png')
    text(tmp_path / 'labels/blank.txt', '\n')
    _read(tmp_path, 'has no object', '2 cases')


@pytest.mark.parametrize(('written', 'decoded'), [('%C3%A9 b', 'é b'), ('e\u0301', '\u00e9')])
def test_yolo__names_of_text_files(written: str, decoded: str, tmp_path: Path) -> None:
    for images, labels in ((written, decoded), (decoded, written)):
        root = tmp_path / images
        save_image(root / f'images/{images}.png')
        text(root / f'labels/{labels}.txt', '0 0.5 0.5 0.5 0.5')
        text(root / 'classes.txt', 'circle\n')
        assert _read(root).train.num_targets == 1


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'tif', 'avif', 'bmp'])
@pytest.mark.parametrize('orientation', [1, 3, 6])
def test_size_is_that_of_the_pixels(suffix: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / f'0.{suffix}'
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.new('RGB', (40, 20), (9, 99, 199)).save(
        path, **({} if suffix == 'bmp' else {'exif': exif})
    )
    text(tmp_path / '0.txt', '0 0.5 0.5 0.5 0.5')
    text(tmp_path / 'classes.txt', 'circle\n')
    image = _read(tmp_path).train.images[0]
    assert (image.height, image.width) == read_image(path).shape[:2]
    limits = [image.width / 4, image.height / 4, image.width * 3 / 4, image.height * 3 / 4]
    np.testing.assert_allclose(image.boxes, [limits])


def test_turned_images_are_counted_where_the_frame_is_unknown(tmp_path: Path) -> None:
    for size, said in ((None, True), ((WIDTH, HEIGHT), True), ((HEIGHT, WIDTH), False)):
        root = tmp_path / str(size)
        save_image(root / '0.jpg', orientation=6)
        voc(root / '0.xml', '0.jpg', [(0, (10, 20, 30, 16))], size)
        assert ('EXIF' in _found(root)[1]) == said


DEPTHS: dict[str, tuple[Any, str]] = {
    '8_bits_in_16.png': (np.full((HEIGHT, WIDTH), 221, np.uint16), '0 to 221'),
    '12_bits_in_16.tif': (np.full((HEIGHT, WIDTH, 3), 4000, np.uint16), '0 to 4000'),
    '12_bits_in_16.png': (np.full((HEIGHT, WIDTH, 3), 4000, np.uint16), '0 to 4000'),
    'float.tif': (np.full((HEIGHT, WIDTH), 0.5, np.float32), 'floating point'),
    'all_16.png': (np.full((HEIGHT, WIDTH), 51400, np.uint16), ''),
    'black.png': (np.zeros((HEIGHT, WIDTH), np.uint16), ''),
}


@pytest.mark.parametrize('name', DEPTHS)
def test_depth(name: str, tmp_path: Path) -> None:
    pixels, word = DEPTHS[name]
    cv2.imwrite(str(tmp_path / name), pixels)
    dump(tmp_path / 'a.json', coco([name]))
    if word:
        _refused(tmp_path, name, word, '8 bits')
        with pytest.raises(DatasetError, match=word):
            read_image(tmp_path / name)
    else:
        assert _read(tmp_path).train.num_targets == 2
        assert read_image(tmp_path / name).max() == pixels.max() // 256


def test_depth__a_dark_image_among_bright_ones(tmp_path: Path) -> None:
    for name, value in (('0.png', 300), ('1.png', 60000)):
        cv2.imwrite(str(tmp_path / name), np.full((HEIGHT, WIDTH), value, np.uint16))
    dump(tmp_path / 'a.json', coco(['0.png', '1.png']))
    assert _read(tmp_path).train.num_targets == 4


CASES: dict[str, tuple[int, tuple[str, ...]]] = {  # boxes (0: refused) and words
    'yolo_tiff_orientation/data': (6, ()),
    'yolo_corner_rows/data': (0, ('corners', 'of 16')),
    'voc_width_height_in_max/data': (0, ('width, height', '10 of 16')),
    'coco_rotation_attribute/data': (15, ('rotated', '11 cases')),
    'png16_with_8bit_content/data': (0, ('16 bits', '10 cases')),
    'yolo_percent_names/data': (16, ()),
    'yolo_decomposed_names/data': (16, ()),
    'yaml_alias_bomb': (0, ('data.yaml', 'alias', 'line 1')),
    'coco_huge_width': (1, ('no width and height', 'image 1')),
    'xml_encoding_nul': (0, ('a.xml', 'broken xml')),
    'xml_encoding_undefined': (0, ('a.xml', 'broken xml')),
    'coco_area_zero_null_absent/area0.json': (24, ()),
    'coco_area_zero_null_absent/areanull.json': (24, ()),
    'coco_area_zero_null_absent/noarea.json': (24, ()),
    'coco_area_zero_null_absent/nocrowd.json': (24, ()),
    'coco_area_zero_null_absent/strcat.json': (24, ()),
}


@pytest.mark.parametrize('name', CASES)
def test_shared_case(name: str) -> None:
    shared = shared_dir()
    path = shared / 'cases' / name if shared else Path('absent')
    if not path.exists():
        pytest.skip('no shared cases beside the repository')
    boxes, words = CASES[name]
    if not boxes:
        _refused(path, *words)
        return
    description = _read(path, *words)
    assert description.train.num_targets == boxes
    if name == 'yolo_tiff_orientation/data':
        np.testing.assert_allclose(
            description.train.images[0].boxes[0], [1, 92, 49, 177], atol=0.01
        )


def test_shared_case__damaged_files() -> None:
    shared = shared_dir()
    folder = shared / 'cases/damaged_files' if shared else Path('absent')
    if not folder.exists():
        pytest.skip('no shared cases beside the repository')
    for path in folder.iterdir():
        with pytest.raises(DatasetError, match=path.name) as caught:
            read_image(path)
        assert '\n' not in str(caught.value)
        assert ('million pixels' in str(caught.value)) == (path.suffix != '.avif')
