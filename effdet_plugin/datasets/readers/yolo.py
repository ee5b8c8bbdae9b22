"""Reads YOLO: one text file a picture, a class number and parts of the picture on each row."""

from dataclasses import dataclass, field
from pathlib import Path

from effdet_plugin.datasets.readers.documents import read_lines
from effdet_plugin.datasets.readers.findings import Findings
from effdet_plugin.datasets.readers.locate import note_unused
from effdet_plugin.datasets.readers.numbers import is_finite, number
from effdet_plugin.datasets.readers.raw import RawBox, RawDataset, RawImage
from effdet_plugin.datasets.readers.tree import Tree
from effdet_plugin.datasets.readers.yolo_labels import LabelFiles
from effdet_plugin.datasets.readers.yolo_layout import YoloLayout

Corners = tuple[float, float, float, float]
#: Numbers after the class: a box; with a confidence; from here on points of an outline.
_BOX, _BOX_AND_CONFIDENCE, _SMALLEST_OUTLINE = 4, 5, 6


def read_yolo(tree: Tree, layout: YoloLayout) -> RawDataset:
    """Read all pictures of a layout; one without a text file is a picture without objects."""
    findings = layout.findings
    labels = LabelFiles(tree)
    rows = _Rows(tree, layout, findings)
    splits = {
        split: [rows.image(path, labels.of(path)) for path in paths]
        for split, paths in layout.splits.items()
    }
    for path in labels.orphans(rows.read):
        findings.add('image_missing', tree.short(path), '', f'for {path.name}')
    note_unused(tree, splits, findings)
    return RawDataset(tree.root, 'YOLO', layout.classes(), splits, findings)


@dataclass
class _Rows:
    """Reads the text files; remembers which."""

    tree: Tree
    layout: YoloLayout
    findings: Findings
    read: set[Path] = field(default_factory=set)

    def image(self, path: Path, labels: Path | None) -> RawImage:
        """One picture with the objects of its text file."""
        if labels is None:
            return RawImage(path, self.tree.short(path), relative=True)
        self.read.add(labels)
        image = RawImage(path, self.tree.short(labels), relative=True)
        names = self.layout.names_for(labels)
        seen: set[str] = set()
        for row, line in enumerate(read_lines(labels), start=1):
            if line in seen:  # removed by Ultralytics, too
                self.findings.add('box_repeated', image.source, f'line {row}')
            elif line:
                box = self._box(line, names, image.source, f'line {row}')
                image.boxes += [box] if box is not None else []
            seen.add(line) if line else None
        return image

    def _box(self, line: str, names: dict[int, str], file: str, row: str) -> RawBox | None:
        numbers = [number(word) for word in line.split()]
        label, values = numbers[0], [value for value in numbers[1:] if value is not None]
        if label is None or len(values) != len(numbers) - 1:
            self.findings.add('row_malformed', file, row, f'{line[:60]!r} is not made of numbers')
            return None
        if not is_finite([label, *values]):
            self.findings.add('box_not_finite', file, row, line[:60])
            return None
        corners = self._corners(values, file, row)
        if label not in names:
            known = f'{len(names)} names, {min(names)} to {max(names)}'
            self.findings.add('class_unknown', file, row, f'{label:g} is not one of the {known}')
            return None
        return RawBox(corners, names[int(label)], row) if corners else None

    def _corners(self, values: list[float], file: str, row: str) -> Corners | None:
        if self.layout.has_keypoints:
            values = values[:_BOX]
        if len(values) == _BOX_AND_CONFIDENCE:
            self.findings.add('box_confidence', file, row)
            values = values[:_BOX]
        if len(values) == _BOX:
            x, y, width, height = values
            return x - width / 2, y - height / 2, x + width / 2, y + height / 2
        if len(values) >= _SMALLEST_OUTLINE and len(values) % 2 == 0:
            return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
        said = f'{len(values)} numbers after the class; a box has 4, an outline x and y a point'
        self.findings.add('row_malformed', file, row, said)
        return None
