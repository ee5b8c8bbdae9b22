"""Reads Pascal VOC: one xml for each image, in any usual arrangement of folders."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

from effdet_plugin.errors import DatasetError
from effdet_plugin.own_data.dataset import RawBox, RawDataset, RawImage
from effdet_plugin.own_data.documents import (
    flag,
    four_numbers,
    is_angle,
    read_lines,
    read_xml,
    size,
    turn,
)
from effdet_plugin.own_data.find_images import (
    SUFFIXES,
    AmbiguousNameError,
    Locator,
    Tree,
    name_key,
    note_unused,
)
from effdet_plugin.own_data.findings import Findings
from effdet_plugin.own_data.splits import split_of_parts, with_train

_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
# Files with the names of the classes in an order of their own (CVAT, labelImg, labelme).
_NAME_FILES = ('labelmap.txt', 'classes.txt', 'class_names.txt')
# Lists of ``ImageSets/Main``; per-class lists (``cat_train.txt``) are none of them.
_LISTS = {
    'train': ('train.txt', 'training.txt'),
    'val': ('val.txt', 'valid.txt', 'validation.txt'),
    'test': ('test.txt',),
}
_FULL_LISTS = ('trainval.txt', 'default.txt')


class Listed(NamedTuple):
    """One image of a split.

    Args:
        name: As the list has it, or the name of the xml without suffix.
        xml: Its annotation, None where there is none.
        source: The list, or the xml itself.
        split: ``train``, ``val`` or ``test``; None where the data has no splits.
    """

    name: str
    xml: Path | None
    source: Path
    split: str | None


def is_voc(path: Path) -> bool:
    """Return whether an xml is a VOC annotation, or a damaged file, which `read_voc` notes."""
    try:
        return read_xml(path).tag == 'annotation'
    except DatasetError:
        return True


def read_voc(tree: Tree) -> RawDataset:
    """Read all VOC xmls of a folder.

    Coordinates are taken as written: most tools count from 0, and subtracting 1 from those of the
    original dataset (which counts from 1) moves a box by one pixel only.
    """
    findings = Findings()
    reader = VocReader(tree, Locator(tree, findings), findings)
    splits = {
        split: [image for image in map(reader.image, listed) if image is not None]
        for split, listed in _listed_images(tree).items()
    }
    found = {box.name for images in splits.values() for image in images for box in image.boxes}
    note_unused(tree, splits, findings)
    return RawDataset(tree.root, 'Pascal VOC', _in_order(tree, found), splits, findings)


@dataclass
class VocReader:
    """Reads single xmls."""

    tree: Tree
    locator: Locator
    findings: Findings

    def image(self, listed: Listed) -> RawImage | None:
        """Return the image of one xml, or of a listed name that has none."""
        if listed.xml is None:
            return self._without_xml(listed)
        try:
            root = read_xml(listed.xml)
        except DatasetError as error:  # noted, so that the others are checked as well
            reason = str(error).removeprefix(f'{listed.xml}: ')
            self.findings.add('file_damaged', self.tree.short(listed.xml), '', reason)
            return None
        path = self.find_image(listed.xml, root, listed.split)
        if path is None:
            return None
        written = root.find('size')
        side = {} if written is None else {child.tag: child.text for child in written}
        image = RawImage(path, self.tree.short(listed.xml))
        sides = side.get('width'), side.get('height')
        image.size = size(*sides)
        if image.size is None and any(sides) and sides != ('0', '0'):
            self.findings.add('size_senseless', image.source, '', f'{sides[0]}, {sides[1]}')
        for row, element in enumerate(root.findall('object'), start=1):
            box = self._box(element, image.source, f'object {row}')
            if box is not None:
                image.boxes.append(box)
        return image

    def _without_xml(self, listed: Listed) -> RawImage | None:
        path = self.locator.locate(listed.name, listed.source, listed.name, listed.split)
        if path is None:
            return None
        self.findings.add('image_without_annotation', self.tree.short(path))
        return RawImage(path, self.tree.short(listed.source), listed.name)

    def find_image(self, xml: Path, root: Element, split: str | None) -> Path | None:
        """Return the image of an xml; None (and a finding) if there is none."""
        # The name inside is often wrong (another suffix, folder or machine), that of the xml not.
        try:
            path = self.locator.index.find_stem(xml.stem, xml, split)
        except AmbiguousNameError:
            path = None
        name = (root.findtext('filename') or '').strip() or xml.stem
        return path or self.locator.locate(name, xml, '', split)

    def _box(self, element: Element, file: str, row: str) -> RawBox | None:
        name = (element.findtext('name') or '').strip()
        boxes = element.findall('bndbox')
        if not name or not boxes:
            self.findings.add('box_missing' if name else 'class_missing', file, row)
            return None
        if len(boxes) > 1:
            self.findings.add('box_second', file, row)
        written = [(boxes[0].findtext(corner) or '').strip() for corner in _CORNERS]
        numbers = four_numbers(written, file, row, self.findings)
        if numbers is None:
            return None
        x1, y1, x2, y2 = numbers
        rotation = _rotation(element)
        if rotation:
            self.findings.add('box_rotated', file, row, f'{rotation:g}')
        return RawBox((x1, y1, x2, y2), name, row, difficult=flag(element.findtext('difficult')))


def _rotation(element: Element) -> float:
    """Return the angle that CVAT writes beside an unrotated rectangle, 0 without one."""
    pairs = [(child.tag, child.text) for child in element]
    for attribute in element.iterfind('attributes/attribute'):
        pairs.append((attribute.findtext('name') or '', attribute.findtext('value')))
    return next(filter(None, (turn(value) for name, value in pairs if is_angle(name))), 0)


def _in_order(tree: Tree, found: set[str]) -> list[str]:
    """Return the classes in the order of a file of names that knows them all, else sorted."""
    for path in tree.named(*_NAME_FILES):
        names = list(dict.fromkeys(_names(path)))
        if found <= set(names):
            return names
    return sorted(found)


def _names(path: Path) -> Iterator[str]:
    try:
        lines = read_lines(path)
    except DatasetError:
        return  # the names in the xmls are enough
    for line in lines:
        name = line.split(':')[0].strip() if path.name.lower() == 'labelmap.txt' else line
        if name and not name.startswith('#') and name.strip('_') not in ('background', 'ignore'):
            yield name


def _listed_images(tree: Tree) -> dict[str, list[Listed]]:
    """Return images by split: from ``ImageSets/Main`` where it exists, else from folder names."""
    xmls = tree.with_suffix('.xml')
    found: dict[str, list[Listed]] = {'train': []}
    lists = [path for path in tree.with_suffix('.txt') if _is_list(path)]
    for folder in sorted({path.parent for path in lists}):
        names = {path.name.lower(): path for path in lists if path.parent == folder}
        for split_name, path in _splits_of(names).items():
            found.setdefault(split_name, []).extend(_entries(path, split_name, xmls))
    for xml in [] if lists else filter(is_voc, xmls):
        split = split_of_parts(tree.parts(xml)[:-1])
        found.setdefault(split or 'train', []).append(Listed(xml.stem, xml, xml, split))
    return with_train(found)


def _is_list(path: Path) -> bool:
    known = {name for names in _LISTS.values() for name in names} | set(_FULL_LISTS)
    return path.name.lower() in known and 'imagesets' in {part.lower() for part in path.parts}


def _splits_of(names: dict[str, Path]) -> dict[str, Path]:
    chosen: dict[str, Path] = {}
    for split, spellings in _LISTS.items():
        for spelling in spellings:
            if spelling in names:
                chosen.setdefault(split, names[spelling])
    for name in _FULL_LISTS:
        if name in names and 'train' not in chosen:
            # Without a train list the full list is what there is to train on.
            chosen['train'] = names[name]
            chosen.pop('val', None)
    return chosen


def _entries(path: Path, split: str, xmls: Iterable[Path]) -> list[Listed]:
    # The folder that holds ``ImageSets``: several years may be side by side.
    root = next(parent.parent for parent in path.parents if parent.name.lower() == 'imagesets')
    by_stem: dict[str, list[Path]] = {}
    for xml in xmls:
        if root in xml.parents:
            by_stem.setdefault(name_key(xml.stem), []).append(xml)
    return [
        Listed(name, _xml_for(name, by_stem), path, split)
        for name in dict.fromkeys(map(_name_of, read_lines(path)))
        if name
    ]


def _name_of(line: str) -> str:
    """Return the name on a line, which may have a suffix and may be followed by -1, 0 or 1."""
    head, _, last = line.rpartition(' ')
    name = head.strip() if last in ('-1', '0', '1') and head.strip() else line
    stem, dot, suffix = name.rpartition('.')
    return stem if dot and f'.{suffix.lower()}' in SUFFIXES else name


def _xml_for(name: str, by_stem: dict[str, list[Path]]) -> Path | None:
    parts = [part for part in name.replace('\\', '/').split('/') if part]
    matching = by_stem.get(name_key(parts[-1]), []) if parts else []
    with_folders = [xml for xml in matching if xml.parts[-len(parts) : -1] == tuple(parts[:-1])]
    return next(iter(with_folders or matching), None)
