"""Reads Pascal VOC: one xml a picture, in any usual arrangement of folders."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from effdet_plugin.datasets.readers.documents import read_lines, read_xml
from effdet_plugin.datasets.readers.findings import Findings
from effdet_plugin.datasets.readers.image_index import AmbiguousNameError, ImageIndex
from effdet_plugin.datasets.readers.locate import Locator, note_unused
from effdet_plugin.datasets.readers.numbers import flag, is_finite, number, size
from effdet_plugin.datasets.readers.raw import RawBox, RawDataset, RawImage
from effdet_plugin.datasets.readers.tree import Tree
from effdet_plugin.datasets.readers.voc_splits import Listed, listed_pictures
from effdet_plugin.errors import DatasetError

_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
#: Files with the names of the classes in an order of their own (CVAT, labelImg, labelme).
_NAME_FILES = ('labelmap.txt', 'classes.txt', 'class_names.txt')


def is_voc(path: Path) -> bool:
    """Whether an xml is a VOC annotation.

    Raises:
        DatasetError: If it is no xml at all.
    """
    return read_xml(path).tag == 'annotation'


def read_voc(tree: Tree) -> RawDataset:
    """Read all VOC xmls of a folder.

    Coordinates are taken as they stand: most tools count from 0, and subtracting 1 from those
    of the original (which counts from 1) moves a box by one pixel only.

    Raises:
        DatasetError: If an xml is damaged.
    """
    findings = Findings()
    index = ImageIndex(tree)
    reader = _Reader(tree, index, Locator(tree, index, findings), findings)
    splits = {
        split: [image for image in map(reader.image, listed) if image is not None]
        for split, listed in listed_pictures(tree).items()
    }
    found = {box.name for images in splits.values() for image in images for box in image.boxes}
    note_unused(tree, splits, findings)
    return RawDataset(tree.root, 'Pascal VOC', _in_order(tree, found), splits, findings)


@dataclass
class _Reader:
    """Reads single xmls."""

    tree: Tree
    index: ImageIndex
    locator: Locator
    findings: Findings

    def image(self, listed: Listed) -> RawImage | None:
        """The picture of one xml, or of a listed name that has none."""
        if listed.xml is None:
            return self._without_xml(listed)
        root = read_xml(listed.xml)
        path = self._picture(listed.xml, root, listed.split)
        if path is None:
            return None
        written = root.find('size')
        side = {} if written is None else {child.tag: child.text for child in written}
        image = RawImage(path, self.tree.short(listed.xml))
        image.size = size(side.get('width'), side.get('height'))
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

    def _picture(self, xml: Path, root: Element, split: str | None) -> Path | None:
        # The name inside is often wrong (another suffix, folder or machine), that of the xml not.
        try:
            path = self.index.find_stem(xml.stem, xml, split)
        except AmbiguousNameError:
            path = None
        if path is not None:
            return path
        name = (root.findtext('filename') or '').strip() or xml.stem
        return self.locator.locate(name, xml, '', split)

    def _box(self, element: Element, file: str, row: str) -> RawBox | None:
        name = (element.findtext('name') or '').strip()
        boxes = element.findall('bndbox')
        if not name or not boxes:
            self.findings.add('box_missing' if name else 'class_missing', file, row)
            return None
        if len(boxes) > 1:
            self.findings.add('box_second', file, row)
        corners = self._corners(boxes[0], file, row)
        difficult = flag(element.findtext('difficult'))
        return None if corners is None else RawBox(corners, name, row, difficult=difficult)

    def _corners(
        self, box: Element, file: str, row: str
    ) -> tuple[float, float, float, float] | None:
        written = [(box.findtext(corner) or '').strip() for corner in _CORNERS]
        numbers = [value for value in map(number, written) if value is not None]
        if len(numbers) != len(_CORNERS):
            self.findings.add('box_not_numbers', file, row, written)
            return None
        if not is_finite(numbers):
            self.findings.add('box_not_finite', file, row, written)
            return None
        x1, y1, x2, y2 = numbers
        if x1 > x2 or y1 > y2:
            self.findings.add('box_swapped', file, row)
        return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _in_order(tree: Tree, found: set[str]) -> list[str]:
    """Classes in the order of a file of names that knows them all, else by the alphabet."""
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
