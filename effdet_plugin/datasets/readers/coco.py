"""Reads COCO json files, one a split."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effdet_plugin.datasets.readers.coco_boxes import corners_of, look_like_corners
from effdet_plugin.datasets.readers.coco_categories import (
    Category,
    categories_of,
    class_names,
    note_double_ids,
)
from effdet_plugin.datasets.readers.coco_files import CocoFile
from effdet_plugin.datasets.readers.findings import Findings
from effdet_plugin.datasets.readers.image_index import ImageIndex
from effdet_plugin.datasets.readers.locate import Locator, note_unused
from effdet_plugin.datasets.readers.numbers import flag, number, size, whole
from effdet_plugin.datasets.readers.raw import RawBox, RawDataset, RawImage
from effdet_plugin.datasets.readers.tree import Tree

Document = dict[str, Any]
Id = int | str


@dataclass
class _File:
    """One json with what messages call it."""

    split: str
    path: Path
    name: str
    document: Document
    categories: dict[Id, Category]


def read_coco(tree: Tree, chosen: dict[str, CocoFile]) -> RawDataset:
    """Read one COCO json for each split.

    Args:
        tree: The data folder.
        chosen: The json of each split; ``train`` is there.
    """
    findings = Findings()
    files = [
        _File(split, path, tree.short(path), document, categories_of(document))
        for split, (path, document) in chosen.items()
    ]
    for file in files:  # first: they make boxes of no known category
        note_double_ids(file.document, file.name, findings)
    locator = Locator(tree, ImageIndex(tree, _usual_folders(tree)), findings)
    splits = {file.split: _FileReader(file, locator, findings).images() for file in files}
    used = Counter(box.name for images in splits.values() for one in images for box in one.boxes)
    classes = class_names([(file.name, file.categories) for file in files], used, findings)
    for file in files:
        _note_corners(file, splits[file.split], findings)
    note_unused(tree, splits, findings)
    return RawDataset(tree.root, 'COCO', classes, splits, findings)


def _usual_folders(tree: Tree) -> list[Path]:
    """Where pictures may be if the data folder holds annotations only (DIR/coco/train.json)."""
    if tree.images:
        return [tree.root]
    parent = tree.root.parent
    names = ('images', 'JPEGImages', 'img', 'data', 'train2017', 'val2017')
    return [tree.root, parent, *(parent / name for name in names)]


class _FileReader:
    """The pictures and boxes of one json."""

    def __init__(self, file: _File, locator: Locator, findings: Findings) -> None:
        self._file = file
        self._locator = locator
        self._findings = findings
        self._box_ids: set[object] = set()
        self._double_box_ids = False
        self._known_ids: set[Id] = set()

    def images(self) -> list[RawImage]:
        """Pictures in the order of the file, those without boxes included."""
        by_id = self._entries()
        for row, annotation in enumerate(self._list('annotations')):
            self._add_box(by_id, annotation, _row(annotation, row))
        images = [image for image in by_id.values() if image is not None]
        if self._double_box_ids:
            for image in images:
                image.boxes = [box._replace(id=None) for box in image.boxes]
        return images

    def _entries(self) -> dict[Id, RawImage | None]:
        by_id: dict[Id, RawImage | None] = {}
        for entry in self._list('images'):
            image_id, name = id_of(entry.get('id')), _file_name(entry)
            if image_id is None or name is None:
                self._findings.add('image_id_missing', self._file.name, _shorten(entry))
            elif image_id in by_id:
                self._findings.add('image_id_double', self._file.name, '', image_id)
            else:
                by_id[image_id] = self._located(entry, image_id, name)
        return self._locator.without_contested(by_id)

    def _located(self, entry: Document, image_id: Id, name: str) -> RawImage | None:
        row = f'image {image_id}'
        path = self._locator.locate(name, self._file.path, row, self._file.split)
        if path is None:
            return None
        number_or_none = image_id if isinstance(image_id, int) else None
        written = size(entry.get('width'), entry.get('height'))
        return RawImage(path, self._file.name, row, written, id=number_or_none)

    def _add_box(self, by_id: dict[Id, RawImage | None], annotation: Document, row: str) -> None:
        image_id = id_of(annotation.get('image_id', annotation.get('item_id')))
        if image_id not in by_id:
            self._note('image_unknown', row, annotation.get('image_id', annotation.get('item_id')))
            return
        category_id = id_of(annotation.get('category_id'))
        category = None if category_id is None else self._file.categories.get(category_id)
        if category is None:
            self._note('category_unknown', row, annotation.get('category_id'))
            return
        corners = corners_of(annotation, self._file.name, row, self._findings)
        image = by_id[image_id]
        if corners is None or image is None:
            return
        image.boxes.append(
            RawBox(
                corners,
                category.name,
                row,
                crowd=flag(annotation.get('iscrowd')) or flag(annotation.get('ignore')),
                area=_area(annotation.get('area')),
                id=self._box_id(annotation.get('id'), row),
            )
        )

    def _box_id(self, written: object, row: str) -> int | None:
        box_id = id_of(written)
        if box_id is not None and box_id in self._box_ids:
            self._double_box_ids = True
            self._note('annotation_id_double', row, box_id)
        self._box_ids.add(box_id)
        return box_id if isinstance(box_id, int) else None

    def _list(self, key: str) -> list[Document]:
        entries = self._file.document.get(key)
        if entries is None:  # FiftyOne leaves annotations out where nothing is labelled
            return []
        if not isinstance(entries, list):
            self._note('row_malformed', key, f'{key} is no list')
            return []
        for row, entry in enumerate(entries):
            if not isinstance(entry, dict):
                self._note('row_malformed', f'{key}, entry {row + 1}', _shorten(entry))
        return [entry for entry in entries if isinstance(entry, dict)]

    def _note(self, kind: str, row: str, detail: object) -> None:
        self._findings.add(kind, self._file.name, row, detail)


def id_of(value: object) -> Id | None:
    """An id as a key: whole numbers also where they are written as text or float."""
    found = whole(value)
    if found is not None:
        return found
    return value if isinstance(value, str) and value else None


def _file_name(entry: Document) -> str | None:
    for key in ('file_name', 'filename', 'path', 'name', 'coco_url'):
        if isinstance(entry.get(key), str) and entry[key].strip():
            return str(entry[key])
    return None


def _area(value: object) -> float | None:
    area = number(value)
    return area if area is not None and 0 < area < 1e18 else None


def _row(annotation: Document, row: int) -> str:
    return f'annotation {annotation.get("id", f"number {row + 1}")}'


def _shorten(entry: object) -> str:
    return json.dumps(entry, default=str)[:60]


def _note_corners(file: _File, images: list[RawImage], findings: Findings) -> None:
    number_outside, total = look_like_corners(images)
    if number_outside:
        findings.add('boxes_are_corners', file.name, '', f'{number_outside} of {total}')
