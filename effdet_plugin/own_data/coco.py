"""Reads COCO json files, one for each split."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from effdet_plugin.own_data.dataset import Corners, RawBox, RawDataset, RawImage
from effdet_plugin.own_data.documents import (
    flag,
    four_numbers,
    is_angle,
    number,
    size,
    turn,
    whole_number,
)
from effdet_plugin.own_data.find_images import Locator, Tree, note_unused
from effdet_plugin.own_data.findings import Findings, printable
from effdet_plugin.own_data.outlines import Outlined, extent_of, note_outlines

Id = int | str
# What some tools write as a category of its own for "nothing".
_NO_OBJECT = frozenset({'_background_', '__background__', '__ignore__', 'background'})
_LARGEST_AREA = 1e18


class CocoFile(NamedTuple):
    """A json that describes boxes in images."""

    path: Path
    document: dict[str, Any]


class _Category(NamedTuple):
    """One entry of the list; ``group`` is its supercategory, '' where there is none."""

    name: str
    group: str


class Locates(Protocol):
    """What finds the images of a json: `Locator`, or mmdet's rule for a config."""

    def locate(self, name: str, near: Path, row: str, split: str | None = None) -> Path | None:
        """Return the image of a name, None if there is none."""

    def without_contested(self, images: dict[Id, RawImage | None]) -> dict[Id, RawImage | None]:
        """Drop images that are another entry's."""


def read_coco(
    tree: Tree, chosen: dict[str, CocoFile], locator: Locates | None = None
) -> RawDataset:
    """Read one COCO json for each split.

    Args:
        tree: The data folder.
        chosen: The json of each split; ``train`` is there.
        locator: Finds the images; by default at all usual places of the folder.
    """
    findings = Findings()
    locator = locator or Locator(tree, findings, _usual_folders(tree))
    # All categories first: a double id there explains boxes of unknown categories.
    files = {split: _File(split, tree, file, locator, findings) for split, file in chosen.items()}
    splits = {split: file.images() for split, file in files.items()}
    used = Counter(box.name for images in splits.values() for one in images for box in one.boxes)
    classes = _class_names(list(files.values()), used, findings)
    note_unused(tree, splits, findings)
    return RawDataset(tree.root, 'COCO', classes, splits, findings)


def dict_entries(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the entries of a list that are dicts, none where there is no such list."""
    entries = document.get(key)
    return [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []


def category_name(entry: dict[str, Any]) -> str:
    """Return the name of an entry of ``categories``, on one line."""
    return _text(entry.get('name'))


def _usual_folders(tree: Tree) -> list[Path]:
    """Return where images may be if the data folder holds annotations only (DIR/coco/x.json)."""
    if tree.images:
        return [tree.root]
    parent = tree.root.parent
    names = ('images', 'JPEGImages', 'img', 'data', 'train2017', 'val2017')
    return [tree.root, parent, *(parent / name for name in names)]


class _File:
    """The categories, images and boxes of one json."""

    def __init__(
        self, split: str, tree: Tree, file: CocoFile, locator: Locates, findings: Findings
    ) -> None:
        self.name = tree.short(file.path)
        self._split = split
        self._path, self._document = file
        self._locator = locator
        self._findings = findings
        self._box_ids: set[object] = set()
        self._double_box_ids = False
        self._outlined: list[Outlined] = []
        self.categories = self._read_categories()

    def images(self) -> list[RawImage]:
        """Return the images in the order of the file, those without boxes included."""
        by_id = self._images_by_id()
        for place, annotation in enumerate(self._list('annotations'), start=1):
            row = f'annotation {annotation.get("id", f"number {place}")}'
            self._add_box(by_id, annotation, row)
        note_outlines(self.name, self._outlined, self._findings)
        images = [image for image in by_id.values() if image is not None]
        if self._double_box_ids:
            for image in images:
                image.boxes = [box._replace(id=None) for box in image.boxes]
        return images

    def _read_categories(self) -> dict[Id, _Category]:
        """Return the categories in the order of their ids, numbers before texts."""
        found: dict[Id, _Category] = {}
        names: dict[Id, set[str]] = {}
        for entry in dict_entries(self._document, 'categories'):
            key = _id_of(entry.get('id'))
            if key is not None:
                category = _Category(category_name(entry), _text(entry.get('supercategory')))
                found.setdefault(key, category)
                names.setdefault(key, set()).add(category.name)
        for key, known in names.items():
            if len(known) > 1:
                self._note('category_id_double', '', f'{key} ({", ".join(sorted(known))})')
        return dict(sorted(found.items(), key=lambda item: (isinstance(item[0], str), item[0])))

    def _images_by_id(self) -> dict[Id, RawImage | None]:
        by_id: dict[Id, RawImage | None] = {}
        for entry in self._list('images'):
            image_id, name = _id_of(entry.get('id')), _file_name(entry)
            if image_id is None or name is None:
                self._note('image_id_missing', _shorten(entry), '')
            elif image_id in by_id:
                self._note('image_id_double', '', image_id)
            else:
                by_id[image_id] = self._locate(entry, image_id, name)
        return self._locator.without_contested(by_id)

    def _locate(self, entry: dict[str, Any], image_id: Id, name: str) -> RawImage | None:
        row = f'image {image_id}'
        path = self._locator.locate(name, self._path, row, self._split)
        if path is None:
            return None
        number_or_none = image_id if isinstance(image_id, int) else None
        sides = entry.get('width'), entry.get('height')
        written = size(*sides)
        if written is None and any(sides):
            self._note('size_senseless', row, f'{_shorten(sides[0])}, {_shorten(sides[1])}')
        return RawImage(path, self.name, row, written, id=number_or_none)

    def _add_box(
        self, by_id: dict[Id, RawImage | None], annotation: dict[str, Any], row: str
    ) -> None:
        written_id = annotation.get('image_id', annotation.get('item_id'))
        image_id, category_id = _id_of(written_id), _id_of(annotation.get('category_id'))
        if image_id not in by_id:
            self._note('image_unknown', row, written_id)
            return
        category = None if category_id is None else self.categories.get(category_id)
        if category is None:
            self._note('category_unknown', row, annotation.get('category_id'))
            return
        corners = self._corners(annotation, row)
        image = by_id[image_id]
        if corners is None or image is None:
            return
        if rotation := _rotation(annotation):
            self._note('box_rotated', row, f'{rotation:g}')
        area = number(annotation.get('area'))
        image.boxes.append(
            RawBox(
                corners,
                category.name,
                row,
                crowd=flag(annotation.get('iscrowd')) or flag(annotation.get('ignore')),
                area=area if area is not None and 0 < area < _LARGEST_AREA else None,
                id=self._box_id(annotation.get('id'), row),
            )
        )

    def _corners(self, annotation: dict[str, Any], row: str) -> Corners | None:
        """Return the corners of a box: of four numbers, of an object, or of its polygons."""
        written = annotation.get('bbox')
        if isinstance(written, dict):
            written = [written.get(key) for key in ('x', 'y', 'width', 'height')]
        extent = extent_of(annotation.get('segmentation'))
        if written:
            numbers = four_numbers(written, self.name, row, self._findings)
            if numbers is None:
                return None
            x, y, width, height = numbers
            corners = x, y, x + width, y + height
            if extent is not None:
                self._outlined.append(Outlined(row, corners, extent))
            return corners
        self._note('box_missing' if extent is None else 'box_from_outline', row, '')
        return extent

    def _box_id(self, written: object, row: str) -> int | None:
        box_id = _id_of(written)
        if box_id is not None and box_id in self._box_ids:
            self._double_box_ids = True
            self._note('annotation_id_double', row, box_id)
        self._box_ids.add(box_id)
        return box_id if isinstance(box_id, int) else None

    def _list(self, key: str) -> list[dict[str, Any]]:
        entries = self._document.get(key)
        if entries is None:  # FiftyOne leaves annotations out where nothing is labelled
            return []
        if not isinstance(entries, list):
            self._note('row_malformed', key, f'{key} is no list')
            return []
        for row, entry in enumerate(entries, start=1):
            if not isinstance(entry, dict):
                self._note('row_malformed', f'{key}, entry {row}', _shorten(entry))
        return dict_entries(self._document, key)

    def _note(self, kind: str, row: str, detail: object) -> None:
        self._findings.add(kind, self.name, row, detail)


def _class_names(files: list[_File], used: Counter[str], findings: Findings) -> list[str]:
    """Return the classes of all splits: the order of the first file, then what only others have.

    Args:
        files: The training split's first.
        used: Number of boxes of each name over all splits.
        findings: Groups, doubles and blank names are noted here.
    """
    everything = [category for file in files for category in file.categories.values()]
    groups = {one.group for one in everything if one.group != one.name}
    for file in files:
        for name, count in Counter(one.name for one in file.categories.values()).items():
            if count > 1:
                findings.add('class_double', file.name, '', name)
            if not name:
                findings.add('class_missing', file.name)
    is_class: dict[str, bool] = {}
    for name, group in everything:
        # Supervisely gives each class its own name as group, which says nothing.
        no_class = (name in groups and group != name) or name in _NO_OBJECT
        is_class[name] = is_class.get(name, False) or bool(used[name]) or not no_class
    for name in (name for name, is_one in is_class.items() if not is_one):
        findings.add('class_group', files[0].name, '', name)
    return [name for name, is_one in is_class.items() if is_one]


def _rotation(annotation: dict[str, Any]) -> float:
    """Return the angle that CVAT and others write beside an unrotated rectangle, 0 without one."""
    pairs: list[tuple[Any, Any]] = list(annotation.items())
    for part in (annotation.get(key) for key in ('attributes', 'extra', 'metadata')):
        for entry in part if isinstance(part, list) else [part]:
            if isinstance(entry, dict):  # of its own, or {'name': ..., 'value': ...}
                pairs += [*entry.items(), (entry.get('name'), entry.get('value'))]
    angles = (turn(value) for key, value in pairs if is_angle(key))
    return next(filter(None, angles), 0)


def _id_of(value: object) -> Id | None:
    """Return an id as a key: a whole number also where it is written as text or float."""
    found = whole_number(value)
    if found is not None:
        return found
    return value if isinstance(value, str) and value else None


def _file_name(entry: dict[str, Any]) -> str | None:
    for key in ('file_name', 'filename', 'path', 'name', 'coco_url'):
        if isinstance(entry.get(key), str) and entry[key].strip():
            return str(entry[key])
    return None


def _text(value: object) -> str:
    return printable(value) if isinstance(value, str | int | float) else ''


def _shorten(entry: object) -> str:
    return json.dumps(entry, default=str)[:60]
