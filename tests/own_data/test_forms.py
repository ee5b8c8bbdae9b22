"""Sets of which a part is in another form, or whose form can only be guessed: refused, or said."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from layout_builder import HEIGHT, WIDTH, categories, coco, dump, save_image, text, voc

from effdet_plugin.errors import DatasetError
from effdet_plugin.own_data import read_dataset

Box = tuple[float, float, float, float]
IMAGES, BOXES = 10, 3


def boxes_of(number: int, part: float = 1.0) -> list[tuple[int, Box]]:
    """Class and corners of an image's boxes: a third to a half of its sides, anywhere in it.

    Args:
        number: Of the image.
        part: Of its sides, from the upper left corner, that the boxes lie in.
    """
    chance, found = random.Random(7 * number), []
    for label in range(BOXES):
        width, height = (chance.uniform(side / 3, side / 2) * part for side in (WIDTH, HEIGHT))
        x, y = chance.uniform(0, WIDTH * part - width), chance.uniform(0, HEIGHT * part - height)
        found.append((label % 2, (x, y, x + width, y + height)))
    return found


def sides(box: Box) -> Box:
    return box[0], box[1], box[2] - box[0], box[3] - box[1]


def centre(box: Box) -> Box:
    x, y, width, height = sides(box)
    return x + width / 2, y + height / 2, width, height


def corners(box: Box) -> Box:
    return box


def rows_first(box: Box) -> Box:
    return box[1], box[0], box[3], box[2]


Form = Callable[[Box], Box]
Choice = Callable[[int], Form]  # the form of an image's boxes


def mixed(usual: Form, other: Form, every: int) -> Choice:
    """Every so many images are in another form."""
    return lambda number: usual if number % every else other


def write_yolo(root: Path, form: Choice, part: float) -> None:
    for number in range(IMAGES):
        save_image(root / f'images/{number}.png')
        rows = [(label, *form(number)(box)) for label, box in boxes_of(number, part)]
        scaled = [(a, b / WIDTH, c / HEIGHT, d / WIDTH, e / HEIGHT) for a, b, c, d, e in rows]
        text(root / f'labels/{number}.txt', '\n'.join(' '.join(map(str, row)) for row in scaled))
    text(root / 'classes.txt', 'circle\nsquare\n')


def write_coco(root: Path, form: Choice, part: float) -> None:
    names = [f'{number}.png' for number in range(IMAGES)]
    found = {n: [(a, form(n)(box)) for a, box in boxes_of(n, part)] for n in range(IMAGES)}
    for name in names:
        save_image(root / name)
    dump(root / 'a.json', coco(names, found))


def write_voc(root: Path, form: Choice, part: float) -> None:
    for number in range(IMAGES):
        save_image(root / f'{number}.png')
        written = [(label, form(number)(box)) for label, box in boxes_of(number, part)]
        voc(root / f'{number}.xml', f'{number}.png', [(a, sides(box)) for a, box in written])


def found(root: Path) -> tuple[str, bool]:
    """What is said, and whether the set is refused."""
    try:
        return '\n'.join(read_dataset(root).check().remarks()), False
    except DatasetError as error:
        return str(error), True


Writer = Callable[[Path, Choice, float], None]
RIGHT: dict[str, tuple[Writer, Form]] = {
    'YOLO': (write_yolo, centre), 'COCO': (write_coco, sides), 'VOC': (write_voc, corners),
}  # fmt: skip


@pytest.mark.parametrize('name', RIGHT)
def test_right_form__nothing_is_said(name: str, tmp_path: Path) -> None:
    write, form = RIGHT[name]
    write(tmp_path, lambda _: form, 1)
    description = read_dataset(tmp_path).check()
    assert description.remarks() == []
    expected = np.array([box for number in range(IMAGES) for _, box in boxes_of(number)])
    images = {int(image.path.stem): image.boxes for image in description.train}
    boxes = np.concatenate([images[number] for number in range(IMAGES)])
    np.testing.assert_allclose(boxes, expected, atol=1e-6)


@pytest.mark.parametrize(
    ('write', 'usual', 'other', 'word'),
    [
        (write_yolo, centre, corners, 'corners (x1'),
        (write_coco, sides, corners, 'corners (x1'),
        (write_voc, corners, sides, 'x, y, width, height'),
    ],
)
def test_half_of_the_images_in_another_form__is_refused(
    write: Writer, usual: Form, other: Form, word: str, tmp_path: Path
) -> None:
    write(tmp_path, mixed(usual, other, 2), 1)
    said, is_refused = found(tmp_path)
    assert is_refused, said
    assert word in said
    assert f' of {IMAGES * BOXES}' in said


def test_one_file_in_another_form__is_a_remark(tmp_path: Path) -> None:
    write_voc(tmp_path, lambda _: corners, 1)
    boxes = [(0, sides(sides(corners))) for corners in ((50, 30, 80, 54), (60, 40, 90, 60))]
    boxes.append((1, sides(sides((40, 34, 70, 60)))))
    voc(tmp_path / '0.xml', '0.png', boxes)
    for number in range(IMAGES, IMAGES + 5):
        save_image(tmp_path / f'{number}.png')
        shutil.copy(tmp_path / '3.xml', tmp_path / f'{number}.xml')
    said, is_refused = found(tmp_path)
    assert not is_refused, said
    assert 'fit as x, y, width, height: a part of the set may be so' in said


@pytest.mark.parametrize(
    ('write', 'form', 'word'),
    [
        (write_yolo, sides, 'from the upper left corner'),
        (write_coco, centre, 'centre x, y'),
        (write_coco, lambda box: rows_first(sides(box)), 'y, x, height, width'),
        (write_voc, rows_first, 'ymin, xmin'),
        (write_voc, centre, 'centre x, y, width, height'),
    ],
)
def test_boxes_that_mostly_stay_inside_in_a_wrong_form__are_refused(
    write: Writer, form: Form, word: str, tmp_path: Path
) -> None:
    write(tmp_path, lambda _: form, 1)
    said, is_refused = found(tmp_path)
    assert is_refused, said
    assert word in said


@pytest.mark.parametrize('name', RIGHT)
def test_boxes_of_smaller_images__are_a_remark(name: str, tmp_path: Path) -> None:
    """Nothing but their place tells them from right ones."""
    write, form = RIGHT[name]
    write(tmp_path, lambda _: form, 0.5)
    said, is_refused = found(tmp_path)
    assert not is_refused, said
    assert f'all {IMAGES * BOXES} boxes lie in the upper left part' in said


def test_yolo__two_key_points_are_no_rotated_box(tmp_path: Path) -> None:
    write_yolo(tmp_path, lambda _: centre, 1)
    chance = random.Random(0)
    for path in sorted((tmp_path / 'labels').iterdir()):
        rows = [list(map(float, line.split())) for line in path.read_text().splitlines()]
        for row in rows:
            _, x, y, width, height = row
            for _ in range(2):
                row += [x + chance.uniform(-0.5, 0.5) * width, y + chance.uniform(-0.5, 0) * height]
        text(path, '\n'.join(f'{row[0]:.0f} ' + ' '.join(map(str, row[1:])) for row in rows))
    said, is_refused = found(tmp_path)
    assert is_refused, said
    assert 'kpt_shape' in said


def test_yolo__rotated_boxes_are_read(tmp_path: Path) -> None:
    write_yolo(tmp_path, lambda _: centre, 1)
    for number, path in enumerate(sorted((tmp_path / 'labels').iterdir())):
        lines = []
        for label, (x1, y1, x2, y2) in boxes_of(number):
            x, y = (x1 + x2) / 2, (y1 + y2) / 2
            points = np.array([(x, y1), (x2, y), (x, y2), (x1, y)]) / (WIDTH, HEIGHT)
            lines.append(f'{label} ' + ' '.join(map(str, points.ravel())))
        text(path, '\n'.join(lines))
    said, is_refused = found(tmp_path)
    assert not is_refused, said
    boxes = np.concatenate([image.boxes for image in read_dataset(tmp_path).train])
    expected = np.array([box for number in range(IMAGES) for _, box in boxes_of(number)])
    np.testing.assert_allclose(boxes, expected, atol=1e-6)


@pytest.mark.parametrize(
    'extra',
    [
        {'attributes': {'Rotation': '45'}},
        {'rotation': 45},
        {'attributes': {'rotation': 45}},
        {'attributes': [{'name': 'rotation', 'value': '45'}]},
        {'extra': {'theta': 45}},
        {'angle': 45.0},
    ],
)
def test_coco__an_angle_wherever_it_stands_is_counted(
    extra: dict[str, object], tmp_path: Path
) -> None:
    document = coco(['0.png'])
    for annotation in document['annotations']:
        annotation.update(extra)
    save_image(tmp_path / '0.png')
    dump(tmp_path / 'a.json', document)
    assert 'rotated (by 45 degrees)' in found(tmp_path)[0]


def test_class_names_that_are_nearly_one__are_a_remark(tmp_path: Path) -> None:
    document = coco(['0.png'])
    document['categories'] = categories(('circle', 'Circles'))
    save_image(tmp_path / '0.png')
    dump(tmp_path / 'a.json', document)
    assert "'Circles' (1 boxes) and 'circle' (1)" in found(tmp_path)[0]


def test_depth__transparency_says_nothing_of_the_colours(tmp_path: Path) -> None:
    pixels = np.full((HEIGHT, WIDTH, 4), 4000, np.uint16)
    pixels[..., 3] = 65535
    cv2.imwrite(str(tmp_path / '0.png'), pixels)
    dump(tmp_path / 'a.json', coco(['0.png']))
    said, is_refused = found(tmp_path)
    assert is_refused, said
    assert '0 to 4000' in said


def test_depth__one_bright_image_among_dark_ones_is_not_enough(tmp_path: Path) -> None:
    names = [f'{number}.png' for number in range(4)]
    for number, name in enumerate(names):
        value = 300 if number else 60000
        cv2.imwrite(str(tmp_path / name), np.full((HEIGHT, WIDTH), value, np.uint16))
    dump(tmp_path / 'a.json', coco(names))
    said, is_refused = found(tmp_path)
    assert is_refused, said
    assert '3 cases' in said


@pytest.mark.parametrize('write', [write_coco, write_voc])
def test_boxes_of_the_stored_image__are_refused_by_name(write: Writer, tmp_path: Path) -> None:
    """The files say nothing of their size, or that of the upright image."""
    write(tmp_path, lambda _: sides if write is write_coco else corners, 1)
    for path in tmp_path.glob('*.png'):
        save_image(path, (WIDTH, HEIGHT), orientation=6)
    for path in (*tmp_path.glob('*.xml'), *tmp_path.glob('*.json')):
        content = path.read_text().replace(f'width>{WIDTH}', f'width>{HEIGHT}')
        content = content.replace(f'height>{HEIGHT}', f'height>{WIDTH}')
        upright = f'"width": {HEIGHT}, "height": {WIDTH}'
        path.write_text(content.replace(f'"width": {WIDTH}, "height": {HEIGHT}', upright))
    said, is_refused = found(tmp_path)
    assert is_refused, said
    assert 'before its EXIF tag turns it' in said


def test_percent__is_a_remark(tmp_path: Path) -> None:
    write_voc(tmp_path, lambda _: lambda box: tuple(np.divide(box, (0.96, 0.64) * 2)), 1)  # type: ignore[arg-type, return-value]
    for path in tmp_path.glob('*.png'):
        save_image(path, (200, 120))
    for path in tmp_path.glob('*.xml'):
        content = path.read_text().replace(f'width>{WIDTH}', 'width>200')
        path.write_text(content.replace(f'height>{HEIGHT}', 'height>120'))
    said, is_refused = found(tmp_path)
    assert not is_refused, said
    assert '(or percent)' in said


@pytest.mark.parametrize(('largest', 'is_said'), [(16_000, True), (65_000, False)])
def test_depth__a_set_of_fourteen_bits_is_a_remark(
    largest: int, is_said: bool, tmp_path: Path
) -> None:
    names = [f'{number}.png' for number in range(3)]
    for name in names:
        cv2.imwrite(str(tmp_path / name), np.full((HEIGHT, WIDTH), largest, np.uint16))
    dump(tmp_path / 'a.json', coco(names))
    said, is_refused = found(tmp_path)
    assert not is_refused, said
    assert (f'use only 0 to {largest} of 65535' in said) == is_said


def test_yolo__height_before_width_is_refused(tmp_path: Path) -> None:
    """Wide, low boxes, which may touch the sides of the image."""
    chance = random.Random(0)
    for number in range(IMAGES):
        save_image(tmp_path / f'images/{number}.png')
        rows = []
        for _ in range(BOXES):
            width, height = chance.uniform(0.5, 0.9), chance.uniform(0.05, 0.1)
            x, y = chance.uniform(width / 2, 1 - width / 2), chance.uniform(0.06, 0.94)
            rows.append(f'0 {x} {y} {height} {width}')
        text(tmp_path / f'labels/{number}.txt', '\n'.join(rows))
    text(tmp_path / 'classes.txt', 'circle\nsquare\n')
    said, is_refused = found(tmp_path)
    assert is_refused, said
    assert 'centre x, y, height, width' in said
