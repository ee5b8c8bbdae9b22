"""Reads YOLO: one text file for each image, a class number and parts of the image on each row."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from effdet_plugin.errors import DatasetError
from effdet_plugin.own_data.dataset import Corners, RawBox, RawDataset, RawImage
from effdet_plugin.own_data.documents import is_finite, number, read_lines
from effdet_plugin.own_data.find_images import Tree, name_key, note_unused
from effdet_plugin.own_data.findings import Findings

# Numbers after the class: a box; with a confidence; from here on points of a polygon.
_BOX, _BOX_AND_CONFIDENCE, _SMALLEST_POLYGON, _FOUR_CORNERS = 4, 5, 6, 8
# Rows are taken for key points if there are so many, and this part of them has all points in the
# box, whose sides are reached from the centre by so much of them.
_FEWEST_ROWS, _MOST, _REACH = 3, 0.9, 0.6


@dataclass
class YoloLayout:
    """Class names and images of a YOLO folder.

    Args:
        names: Class names by number; by folder where each has a list of its own (labelImg).
        splits: Images by split.
        findings: Noted so far.
        has_keypoints: Rows have keypoints after the box.
    """

    names: dict[Path, dict[int, str]]
    splits: dict[str, list[Path]]
    findings: Findings = field(default_factory=Findings)
    has_keypoints: bool = False

    def names_for(self, labels: Path) -> dict[int, str]:
        """Return the names that the numbers of a text file mean: of the nearest folder above."""
        above = [folder for folder in self.names if folder in labels.parents]
        nearest = max(above, key=lambda folder: len(folder.parts), default=next(iter(self.names)))
        return self.names[nearest]


def read_yolo(tree: Tree, layout: YoloLayout) -> RawDataset:
    """Read all images of a layout; one without a text file is an image without objects."""
    findings = layout.findings
    labels = LabelFiles(tree)
    rows = _Rows(tree, layout, findings)
    splits = {
        split: [rows.image(path, labels.of(path)) for path in paths]
        for split, paths in layout.splits.items()
    }
    rows.note_keypoints()
    for path in labels.orphans(rows.read):
        findings.add('image_missing', tree.short(path), '', f'for {path.name}')
    note_unused(tree, splits, findings)
    # All names without doubles, in the order of their numbers.
    classes = dict.fromkeys(name for table in layout.names.values() for name in table.values())
    return RawDataset(tree.root, 'YOLO', list(classes), splits, findings)


class LabelFiles:
    """The text files of a tree by the image that they belong to.

    Args:
        tree: The data folder.
    """

    def __init__(self, tree: Tree) -> None:
        self._files = set(tree.with_suffix('.txt'))
        self._by_key: dict[str, list[Path]] = defaultdict(list)
        self._images = set(tree.images)
        self._keys = Counter(name_key(path.stem) for path in tree.images)
        for path in self._files:
            self._by_key[name_key(path.stem)].append(path)

    def of(self, image: Path) -> Path | None:
        """Return the text file of an image, None if it has none.

        ``images`` becomes ``labels`` in the path; else it is beside the image; else it is the
        only text file of that name. Names may be percent-encoded or of decomposed letters.
        """
        usual = self._usual(image)
        for path in usual:
            if path in self._files or (image not in self._images and path.is_file()):
                return path
        alike = self._by_key.get(name_key(image.stem), [])
        folders = {path.parent for path in usual}
        near = [path for path in alike if path.parent in folders] or alike
        return near[0] if len(near) == 1 and self._keys[name_key(image.stem)] == 1 else None

    def orphans(self, read: set[Path]) -> list[Path]:
        """Return text files with objects, beside those that were read, whose image is missing."""
        folders = {path.parent for path in read}
        return [
            path
            for path in sorted(self._files - read)
            if path.parent in folders
            and name_key(path.stem) not in self._keys
            and is_label_file(path)
        ]

    def _usual(self, image: Path) -> list[Path]:
        name = f'{image.stem}.txt'
        parts = image.parts
        swapped = [
            Path(*parts[:place], 'labels', *parts[place + 1 : -1], name)
            for place in range(len(parts) - 2, -1, -1)
            if parts[place].lower() in ('images', 'jpegimages', 'img', 'imgs')
        ]
        folder = image.parent
        return [
            *swapped[:1],
            folder / name,
            folder / 'labels' / name,
            folder.parent / 'labels' / name,
            folder.parent / 'labels' / folder.name / name,
        ]


def is_label_file(path: Path) -> bool:
    """Return whether every row of a text file is a class number and four or more numbers."""
    try:
        rows = [line.split() for line in read_lines(path) if line]
    except DatasetError:
        return False
    return bool(rows) and all(
        len(row) >= 5 and all(number(word) is not None for word in row) for row in rows
    )


@dataclass
class _Rows:
    """Reads the text files and remembers which."""

    tree: Tree
    layout: YoloLayout
    findings: Findings
    read: set[Path] = field(default_factory=set)
    _values: list[list[float]] = field(default_factory=list)

    def note_keypoints(self) -> None:
        """Note rows that were taken as polygons but all look like a box with key points."""
        if self._values and not self.layout.has_keypoints and _look_like_keypoints(self._values):
            count = f'all {len(self._values)} rows have {len(self._values[0]) + 1} numbers'
            self.findings.add('box_keypoints', self.tree.root.name, '', count)

    def image(self, path: Path, labels: Path | None) -> RawImage:
        """Return one image with the objects of its text file."""
        if labels is None:
            return RawImage(path, self.tree.short(path), relative=True)
        self.read.add(labels)
        image = RawImage(path, self.tree.short(labels), relative=True)
        names = self.layout.names_for(labels)
        seen: set[str] = set()
        for row, line in enumerate(read_lines(labels), start=1):
            if not line:
                continue
            if line in seen:  # Ultralytics removes repeated rows, too
                self.findings.add('box_repeated', image.source, f'line {row}')
            elif box := self._box(line, names, image.source, f'line {row}'):
                image.boxes.append(box)
            seen.add(line)
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
        self._values.append(values)
        if len(values) == _BOX_AND_CONFIDENCE:
            if not 0 <= values[-1] <= 1:
                self.findings.add('box_angle', file, row, f'{values[-1]:g}')
                return None
            self.findings.add('box_confidence', file, row)
            values = values[:_BOX]
        if len(values) == _BOX:
            x, y, width, height = values
            return x - width / 2, y - height / 2, x + width / 2, y + height / 2
        if len(values) >= _SMALLEST_POLYGON and len(values) % 2 == 0:
            return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
        fault = f'{len(values)} numbers after the class; a box has 4, a polygon x and y per point'
        if len(values) % 3 == 1:
            fault += '; key points need kpt_shape in the data.yaml'
        self.findings.add('row_malformed', file, row, fault)
        return None


def _look_like_keypoints(rows: list[list[float]]) -> bool:
    """Return whether all rows are a box and points in it: x, y or x, y, visibility for each."""
    length = len(rows[0])
    if len(rows) < _FEWEST_ROWS or length <= _SMALLEST_POLYGON:
        return False
    if any(len(row) != length for row in rows):
        return False
    # Four corners of rotated boxes are far more common than two key points.
    if length == _FOUR_CORNERS and 2 * sum(map(_is_convex, rows)) >= len(rows):
        return False
    return any(
        (length - _BOX) % step == 0
        and sum(_has_points_inside(row, step) for row in rows) >= _MOST * len(rows)
        for step in (2, 3)
    )


def _is_convex(row: list[float]) -> bool:
    """Return whether four points go round a convex shape, as corners of a rotated box do."""
    points = list(zip(row[::2], row[1::2], strict=True))
    turns = [
        (x2 - x1) * (y3 - y2) - (y2 - y1) * (x3 - x2)
        for (x1, y1), (x2, y2), (x3, y3) in zip(
            points, points[1:] + points[:1], points[2:] + points[:2], strict=True
        )
    ]
    return min(turns) >= 0 or max(turns) <= 0


def _has_points_inside(row: list[float], step: int) -> bool:
    """Return whether the points behind a box lie in it; those that are not visible count not."""
    x, y, width, height = row[:_BOX]
    points = [row[place : place + step] for place in range(_BOX, len(row), step)]
    if step == 3 and any(point[2] not in (0, 1, 2) for point in points):
        return False
    return all(
        abs(point[0] - x) <= _REACH * width and abs(point[1] - y) <= _REACH * height
        for point in points
        if any(point[:2])
    )
