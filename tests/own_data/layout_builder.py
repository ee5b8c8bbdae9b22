"""Small data folders as labelling tools write them: images, jsons, xmls, text files."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

WIDTH, HEIGHT = 96, 64
CLASSES = ('circle', 'square')
# Two boxes that every image gets unless a layout says otherwise: x, y, width, height.
FIRST, SECOND = (10, 20, 30, 16), (60, 8, 20, 24)
ORIENTATION = 274

Boxes = Sequence[tuple[int, Sequence[float]]]  # class, then x, y, width, height
BOTH: Boxes = ((0, FIRST), (1, SECOND))


@dataclass(frozen=True)
class Layout:
    """A folder and what must come of it.

    Args:
        build: Writes it below an empty folder.
        train: Number of training images; the sum with ``val`` None.
        val: Number of validation images, None if the folder has no such split.
        boxes: Targets in both.
        classes: Names in order.
        says: Files, rows, numbers and options that the remarks (or the error) must name.
        finds: Kinds of finding that must be among those of the description.
        error: It must be refused; the counts mean nothing then.
        data: What is given as ``--data`` below the folder, '' for the folder itself.
    """

    build: Callable[[Path], None]
    train: int = 2
    val: int | None = None
    boxes: int = 4
    classes: tuple[str, ...] = CLASSES
    says: tuple[str, ...] = ()
    finds: tuple[str, ...] = ()
    error: bool = False
    data: str = ''


def save_image(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), orientation: int = 1) -> None:
    """Write a plain image; ``size`` is (width, height) as stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    kind = {'.png': 'PNG', '.bmp': 'BMP'}.get(path.suffix.lower(), 'JPEG')
    options = {} if orientation == 1 else {'exif': exif}
    Image.new('RGB', size, (120, 90, 60)).save(path, kind, **options)


def save_images(root: Path, names: Iterable[str]) -> None:
    """Write several images of the usual size."""
    for name in names:
        save_image(root / name)


def text(path: Path, content: str, encoding: str = 'utf-8') -> None:
    """Write a text file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding=encoding)


def categories(names: Iterable[str] = CLASSES, first: int = 1) -> list[dict[str, Any]]:
    """Categories of COCO with ids from ``first`` on."""
    return [{'id': number, 'name': name} for number, name in enumerate(names, start=first)]


def coco(
    names: Sequence[str],
    boxes: Mapping[int, Boxes] | None = None,
    first_category: int = 1,
    first_image: int = 1,
) -> dict[str, Any]:
    """A COCO document whose images have :data:`BOTH` boxes unless ``boxes`` (by place) says."""
    document: dict[str, Any] = {'images': [], 'annotations': [], 'categories': []}
    document['categories'] = categories(first=first_category)
    for place, name in enumerate(names):
        image = {'id': first_image + place, 'file_name': name, 'width': WIDTH, 'height': HEIGHT}
        document['images'].append(image)
        for label, box in (boxes or {}).get(place, BOTH):
            annotation = {
                'id': 1001 + len(document['annotations']),
                'image_id': first_image + place,
                'category_id': first_category + label,
                'bbox': list(box),
                'area': box[2] * box[3],
                'iscrowd': 0,
            }
            document['annotations'].append(annotation)
    return document


def dump(path: Path, document: object) -> None:
    """Write a json."""
    text(path, json.dumps(document))


def voc(
    path: Path,
    filename: str,
    boxes: Boxes = BOTH,
    size: tuple[int, int] | None = (WIDTH, HEIGHT),
    extra: str = '<difficult>0</difficult>',
    names: Sequence[str] = CLASSES,
) -> None:
    """Write a VOC xml; ``extra`` goes into each object."""
    objects = ''.join(
        f'<object><name>{names[label]}</name>{extra}<bndbox><xmin>{x}</xmin><xmax>{x + w}</xmax>'
        f'<ymin>{y}</ymin><ymax>{y + h}</ymax></bndbox></object>'
        for label, (x, y, w, h) in boxes
    )
    sides = f'<size><width>{size[0]}</width><height>{size[1]}</height></size>' if size else ''
    text(path, f'<annotation><filename>{filename}</filename>{sides}{objects}</annotation>')


def yolo(path: Path, boxes: Boxes = BOTH, tail: str = '') -> None:
    """Write a YOLO text file; ``tail`` goes behind each row."""
    rows = [
        f'{label} {(x + w / 2) / WIDTH} {(y + h / 2) / HEIGHT} {w / WIDTH} {h / HEIGHT}{tail}'
        for label, (x, y, w, h) in boxes
    ]
    text(path, '\n'.join(rows) + '\n')


def fingerprint(root: Path) -> dict[str, str]:
    """Names and contents of all files below a folder."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }
