"""Outlines of objects in COCO jsons, polygons and masks: their extent, and boxes that differ."""

import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from effdet_plugin.own_data.dataset import Corners
from effdet_plugin.own_data.documents import is_finite, number, size
from effdet_plugin.own_data.findings import Findings
from effdet_plugin.own_data.forms import CORNERS

Numbers = NDArray[np.float64]

# A box and an outline whose extents overlap by less are not of one object as it is drawn.
_AGREE_IOU = 0.5
# Boxes in the right form are those of their outlines but for rounding: so many of them are in the
# likely form, and fewer as written.
_SAME_IOU, _MOST, _RIGHT, _FEWEST = 0.85, 0.9, 0.5, 3
_MOST_RUNS = 10_000_000
_RUNS = re.compile(r'[0-o]+')  # six bits of each letter from '0' on


class Outlined(NamedTuple):
    """An object that has a box and an outline.

    Args:
        row: Where it is written.
        corners: ``x1, y1, x2, y2`` of the box, as COCO's x, y, width, height.
        extent: ``x1, y1, x2, y2`` of the outline.
    """

    row: str
    corners: Corners
    extent: Corners


def extent_of(segmentation: object) -> Corners | None:
    """Return the extent of polygons or of a run-length encoded mask; None without a usable one.

    Args:
        segmentation: A list of lists ``x, y, x, y, ...``, (VIA) one such list, or a dict of
            ``size`` (height, width) and ``counts`` (numbers, or text as pycocotools packs them).
    """
    if isinstance(segmentation, dict):
        return _extent_of_mask(segmentation)
    if not isinstance(segmentation, list):
        return None
    points = _points(segmentation)
    if not points or len(points) % 2 or not is_finite(points):
        return None
    xs, ys = points[::2], points[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def note_outlines(file: str, objects: Sequence[Outlined], findings: Findings) -> None:
    """Note that the boxes of a file are not those of its outlines.

    Args:
        file: For the finding.
        objects: All of the file that have both.
        findings: ``form_other`` (an error) where most boxes are those of their outlines in another
            form, else ``box_not_of_outline`` (a remark).
    """
    if not objects:
        return
    boxes = np.array([one.corners for one in objects])
    extents = np.array([one.extent for one in objects])
    have_area = (extents[:, :2] < extents[:, 2:]).all(axis=1)
    fit = _iou(boxes, extents)
    wrong = have_area & (fit < _AGREE_IOU)
    if not wrong.any():
        return
    row = objects[int(np.flatnonzero(wrong)[0])].row
    shares = f'{wrong.sum()} of {have_area.sum()}'
    fault = f'the boxes of {shares} objects are not where their polygons or masks are'
    likely = ''
    if have_area.sum() >= _FEWEST and (fit[have_area] >= _SAME_IOU).mean() < _RIGHT:
        likely = _likely_form(boxes[have_area], extents[have_area])
    if likely:
        findings.add(
            'form_other', file, row, f'{fault}, and nearly all are as {likely}, where COCO has '
            'x, y, width, height'
        )  # fmt: skip
    else:
        findings.add('box_not_of_outline', file, row, fault)


def _points(segmentation: list[Any]) -> list[float]:
    """Return all numbers of polygons: of a list of lists, or (VIA) of one flat list."""
    nested = (part if isinstance(part, list) else [part] for part in segmentation)
    values = list(chain.from_iterable(nested))
    if {int, float}.issuperset(map(type, values)):  # of nearly all files
        return values
    found = map(number, values)
    return [value for value in found if value is not None]


def _extent_of_mask(mask: dict[str, Any]) -> Corners | None:
    """Return what ``pycocotools.mask.toBbox`` gives; that ends the process on a height of 0."""
    sides: Any = mask.get('size')
    height_width = size(*sides) if isinstance(sides, list) and len(sides) == 2 else None
    runs = _runs(mask.get('counts'))
    if height_width is None or runs is None or (runs < 0).any():
        return None
    height, width = height_width
    if not len(runs) or runs.sum(dtype=np.float64) > height * width:
        return None
    ends = np.cumsum(runs)
    # Columns from left to right, of background first.
    starts, stops = ends[:-1:2], ends[1::2]
    starts, stops = starts[starts < stops], stops[starts < stops]
    if not len(starts):
        return None
    first, last = starts // height, (stops - 1) // height
    is_one = first == last
    top = np.where(is_one, starts % height, 0).min()
    bottom = np.where(is_one, (stops - 1) % height + 1, height).max()
    return float(first.min()), float(top), float(last.max() + 1), float(bottom)


def _runs(counts: object) -> NDArray[np.int64] | None:
    """Return the lengths of runs, None where they make no sense."""
    if isinstance(counts, str) and len(counts) <= _MOST_RUNS and _RUNS.fullmatch(counts):
        return _unpacked(counts)
    if not isinstance(counts, list) or len(counts) > _MOST_RUNS:
        return None
    if not all(type(one) is int and 0 <= one < 2**40 for one in counts):
        return None
    return np.array(counts, dtype=np.int64)


def _unpacked(text: str) -> NDArray[np.int64] | None:
    """Return the numbers that pycocotools packs as text.

    Five bits a letter, the lowest first; a sixth bit says that more follow, and the fifth of the
    last letter is the sign. From the fourth number on it is the difference to the last but one.
    """
    letters = np.frombuffer(text.encode('ascii'), dtype=np.uint8).astype(np.int64) - ord('0')
    is_last = letters < 32
    if not is_last[-1]:
        return None
    first = np.flatnonzero(np.concatenate([[True], is_last[:-1]]))
    lengths = np.diff(np.append(first, len(letters)))
    if lengths.max() > 8:  # more than 40 bits
        return None
    shifts = 5 * (np.arange(len(letters)) - np.repeat(first, lengths))
    values = np.add.reduceat((letters & 31) << shifts, first)
    values -= np.where(letters[is_last] & 16, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _likely_form(boxes: Numbers, extents: Numbers) -> str:
    """Return the form in which nearly all boxes are those of their outlines, '' for none."""
    written = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    for name, read in _FORMS.items():
        if (_iou(read(written), extents) >= _SAME_IOU).mean() >= _MOST:
            return name
    return ''


def _iou(boxes: Numbers, others: Numbers) -> Numbers:
    """Return the IoU of the boxes of each row, (n,)."""
    low, high = np.maximum(boxes[:, :2], others[:, :2]), np.minimum(boxes[:, 2:], others[:, 2:])
    overlap = (high - low).clip(min=0).prod(axis=1)
    areas = [(each[:, 2:] - each[:, :2]).clip(min=0).prod(axis=1) for each in (boxes, others)]
    union = areas[0] + areas[1] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def _of_centres(written: Numbers) -> Numbers:
    half = written[:, 2:] / 2
    return np.hstack([written[:, :2] - half, written[:, :2] + half])


def _of_rows(written: Numbers) -> Numbers:
    x, y, width, height = written[:, [1, 0, 3, 2]].T
    return np.stack([x, y, x + width, y + height], axis=1)


_FORMS: dict[str, Callable[[Numbers], Numbers]] = {
    CORNERS: lambda written: written,
    'centre x, y, width, height': _of_centres,
    'y, x, height, width': _of_rows,
    'y1, x1, y2, x2': lambda written: written[:, [1, 0, 3, 2]],
}
