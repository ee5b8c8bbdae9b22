"""Reads csv tables of boxes.

Of TFLite Model Maker and AutoML (no header, the set first), with named columns (TensorFlow,
Open Images), and of RetinaNet (no header, the image first).
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import read_text
from effdet_plugin.own_data.dataset import RawBox, RawDataset, RawImage
from effdet_plugin.own_data.documents import is_finite, number, size
from effdet_plugin.own_data.find_images import SUFFIXES, Locator, Tree, note_unused
from effdet_plugin.own_data.findings import Findings
from effdet_plugin.own_data.splits import split_of_parts, split_of_word, with_train

_COLUMNS = {
    'image': ('filename', 'file_name', 'image', 'image_path', 'path', 'imageid', 'image_id'),
    'label': ('class', 'label', 'labelname', 'class_name', 'category'),
    'x1': ('xmin', 'x_min', 'x1'),
    'y1': ('ymin', 'y_min', 'y1'),
    'x2': ('xmax', 'x_max', 'x2'),
    'y2': ('ymax', 'y_max', 'y2'),
    'width': ('width', 'image_width'),
    'height': ('height', 'image_height'),
    'set': ('set', 'split', 'ml_use'),
}
_NEEDED = ('image', 'label', 'x1', 'y1', 'x2', 'y2')
_SET_COLUMNS = 3  # set, path, label; then up to four corners
_RETINANET = ('image', 'x1', 'y1', 'x2', 'y2', 'label')
# Parts of the image are never larger; pixels of a full table always are.
_LARGEST_RELATIVE = 2.0


class _Row(NamedTuple):
    """One row of any table; xs and ys as written, empty for an image without objects."""

    number: int
    image: str
    label: str
    xs: list[str]
    ys: list[str]
    split: str | None
    size: tuple[int, int] | None


@dataclass
class Table:
    """A table of boxes."""

    path: Path
    rows: list[_Row]
    relative: bool


def choose_tables(tree: Tree) -> list[Table]:
    """Return the tables of boxes in a folder, sorted by name, without other csv files."""
    tables = [table_of(tree, path) for path in tree.with_suffix('.csv')]
    return [table for table in tables if table is not None]


def table_of(tree: Tree, path: Path) -> Table | None:
    """Return a csv file as a table of boxes, None if it is another table.

    Raises:
        DatasetError: A row of a Model Maker table names no set.
    """
    text = read_text(path)
    delimiter = max(',;\t', key=text.partition('\n')[0].count)
    try:
        cells = [
            [cell.strip() for cell in row]
            for row in csv.reader(text.splitlines(), delimiter=delimiter)
        ]
    except csv.Error as error:
        raise DatasetError(f'{path}: broken csv ({error})') from error
    numbered = [(number, row) for number, row in enumerate(cells, start=1) if any(row)]
    if not numbered:
        return None
    first = numbered[0][1]
    columns = _header(first)
    if columns:
        numbered = numbered[1:]
    elif _is_set(first[0]) and len(first) > 1:
        return Table(path, [_row_of_set(path, number, row) for number, row in numbered], True)
    elif len(first) == len(_RETINANET) and Path(first[0]).suffix.lower() in SUFFIXES:
        columns = {name: place for place, name in enumerate(_RETINANET)}
    else:
        return None
    split = split_of_parts((*tree.parts(path)[:-1], path.stem))
    rows = [_row_of_columns(number, row, columns, split) for number, row in numbered]
    return Table(path, rows, _is_relative(rows))


def read_tables(tree: Tree, tables: list[Table]) -> RawDataset:
    """Read tables of boxes; classes are in the order of the alphabet."""
    findings = Findings()
    locator = Locator(tree, findings)
    splits: dict[str, dict[Path, RawImage]] = {'train': {}}
    for table in tables:
        _add_table(tree, table, locator, findings, splits)
    listed = with_train({split: list(images.values()) for split, images in splits.items()})
    names = sorted({box.name for images in listed.values() for one in images for box in one.boxes})
    note_unused(tree, listed, findings)
    return RawDataset(tree.root, 'csv', names, listed, findings)


def _add_table(
    tree: Tree,
    table: Table,
    locator: Locator,
    findings: Findings,
    splits: dict[str, dict[Path, RawImage]],
) -> None:
    known: dict[tuple[str, str], Path | None] = {}
    source = tree.short(table.path)
    for row in table.rows:
        split, place = row.split or 'train', f'line {row.number}'
        if (split, row.image) not in known:
            known[split, row.image] = locator.locate(row.image, table.path, place, row.split)
        path = known[split, row.image]
        if path is None:
            continue
        images = splits.setdefault(split, {})
        image = images.setdefault(path, RawImage(path, source, place, row.size, table.relative))
        image.boxes.extend(_boxes(row, source, place, findings))


def _boxes(row: _Row, file: str, place: str, findings: Findings) -> Iterator[RawBox]:
    written = [text for text in (*row.xs, *row.ys) if text]
    if not written and not row.label:
        return
    xs, ys = ([number(text) for text in texts if text] for texts in (row.xs, row.ys))
    numbers = [value for value in (*xs, *ys) if value is not None]
    if len(numbers) != len(written) or len(xs) != len(ys) or len(xs) < 2:
        findings.add('box_not_numbers', file, place, ', '.join(written))
    elif not is_finite(numbers):
        findings.add('box_not_finite', file, place, ', '.join(written))
    elif not row.label:
        findings.add('class_missing', file, place)
    else:
        across, down = numbers[: len(xs)], numbers[len(xs) :]
        corners = min(across), min(down), max(across), max(down)
        if len(xs) == 2:  # two corners, in the order that they are written in
            corners = across[0], down[0], across[1], down[1]
        yield RawBox(corners, row.label, place)


def _header(cells: list[str]) -> dict[str, int] | None:
    lower = [cell.lower() for cell in cells]
    columns = {
        name: lower.index(spelling)
        for name, spellings in _COLUMNS.items()
        for spelling in reversed(spellings)
        if spelling in lower
    }
    return columns if all(name in columns for name in _NEEDED) else None


def _row_of_columns(
    number: int, cells: list[str], columns: dict[str, int], split: str | None
) -> _Row:
    def cell(name: str) -> str:
        place = columns.get(name, len(cells))
        return cells[place] if place < len(cells) else ''

    return _Row(
        number,
        cell('image'),
        cell('label'),
        [cell('x1'), cell('x2')],
        [cell('y1'), cell('y2')],
        split_of_word(cell('set')) or split,
        size(cell('width'), cell('height')),
    )


def _row_of_set(path: Path, number: int, cells: list[str]) -> _Row:
    if not _is_set(cells[0]):
        raise DatasetError(
            f'{path}, line {number}: {cells[0]!r} is none of TRAIN, VALIDATION, TEST, UNASSIGNED'
        )
    image, label = [*cells[1:_SET_COLUMNS], '', ''][:2]
    corners = cells[_SET_COLUMNS:]
    return _Row(number, image, label, corners[::2], corners[1::2], split_of_word(cells[0]), None)


def _is_set(word: str) -> bool:
    return split_of_word(word) is not None or word.upper() in ('UNASSIGNED', 'UNASSIGNED_SPLIT')


def _is_relative(rows: list[_Row]) -> bool:
    texts = (text for row in rows for text in (*row.xs, *row.ys))
    numbers = [value for value in map(number, texts) if value is not None]
    return all(abs(value) <= _LARGEST_RELATIVE for value in numbers)
