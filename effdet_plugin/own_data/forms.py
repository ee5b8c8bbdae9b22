"""Tells boxes that are written in another form than their file's: corners for sides, parts, ..."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from effdet_plugin.own_data.findings import Findings

Numbers = NDArray[np.float64]

# The share of boxes that must be mended from which a set is refused, whatever its form; and where
# all its boxes fit another form as well.
_REFUSED_SHARE, _REFUSED_SHARE_IN_FORM = 0.5, 0.2
# Fewer boxes say nothing; from so many on, not one that contradicts another form is suspicious.
_FEWEST, _FEWEST_IN_FORM = 3, 8
# An image may be left by this much before a box counts as wrong, pixels and part of its side.
_SLACK_PX, _SLACK = 2.0, 0.02
_LARGEST_PART = 1.5
# What the numbers of a box are, by the kind of annotations.
_WRITTEN = {
    'COCO': 'x, y, width, height in pixels',
    'YOLO': 'centre x, y, width, height in parts of the image',
    'Pascal VOC': 'xmin, ymin, xmax, ymax in pixels',
    'csv': 'xmin, ymin, xmax, ymax',
}
CORNERS, SIDES = 'corners (x1, y1, x2, y2)', 'x, y, width, height'


def note_form(
    source: str, file: str, corners: Numbers, sizes: Numbers, mended: int, findings: Findings
) -> None:
    """Note that a set of boxes is probably in another form.

    Args:
        source: The kind of annotations, see `RawDataset`.
        file: For the finding.
        corners: (n, 4) in pixels, as a reader understood them, neither sorted nor clipped.
        sizes: (n, 2), width and height of each box's image.
        mended: How many of the boxes were changed by more than rounding, or dropped.
        findings: ``boxes_are_corners`` or ``form_other`` (errors) or ``form_unsure`` (a remark).
    """
    count = len(corners)
    if count < _FEWEST:
        return
    written = _as_written(source, corners)
    likely = next((name for name, holds in _OTHERS[source].items() if holds(written, sizes)), '')
    share, told = mended / count, f'{mended} of {count}'
    in_form = likely in (CORNERS, SIDES) and count >= _FEWEST_IN_FORM
    if share > _REFUSED_SHARE or (in_form and share >= _REFUSED_SHARE_IN_FORM):
        if source == 'COCO' and likely == CORNERS:
            findings.add('boxes_are_corners', file, '', told)
            return
        form = f'{likely}, which all of them fit' if likely else 'another form or image size'
        findings.add('form_other', file, '', f'{told} boxes leave their image or have no extent '
                     f'as {_WRITTEN[source]}; they look like {form}')  # fmt: skip
    elif in_form and _is_suspicious(source, likely, mended):
        findings.add(
            'form_unsure', file, '', f'all {count} boxes are taken as {_WRITTEN[source]}, and '
            f'would fit as {likely}, too'
        )  # fmt: skip


def is_beyond(corners: Numbers, sizes: Numbers) -> NDArray[np.bool_]:
    """Return which boxes leave their image by more than rounding or a slip of the mouse.

    Args:
        corners: (n, 4) in pixels.
        sizes: (2,) or (n, 2), width and height.
    """
    slack = np.maximum(_SLACK_PX, _SLACK * sizes)
    low, high = (
        np.minimum(corners[:, :2], corners[:, 2:]),
        np.maximum(corners[:, :2], corners[:, 2:]),
    )
    return np.asarray(((low < -slack) | (high > sizes + slack)).any(axis=1), dtype=np.bool_)


def _is_suspicious(source: str, likely: str, mended: int) -> bool:
    # A box of COCO or YOLO whose sides are longer than its place is common; only such boxes, not.
    # Boxes in the left upper quarter fit as sides, too, so those of VOC need a fault besides.
    return mended > 0 if source in ('Pascal VOC', 'csv') else likely == CORNERS


def _as_written(source: str, corners: Numbers) -> Numbers:
    """Return the four numbers of each box as its file has them, in pixels."""
    sides = corners[:, 2:] - corners[:, :2]
    if source == 'COCO':
        return np.hstack([corners[:, :2], sides])
    return np.hstack([corners[:, :2] + sides / 2, sides]) if source == 'YOLO' else corners


def _fit(low: Numbers, high: Numbers, sizes: Numbers) -> bool:
    """Return whether all boxes have an extent and lie in their image."""
    return bool((low < high).all()) and not is_beyond(np.hstack([low, high]), sizes).any()


def _are_corners(written: Numbers, sizes: Numbers) -> bool:
    return _fit(written[:, :2], written[:, 2:], sizes)


def _are_sides(written: Numbers, sizes: Numbers) -> bool:
    return _fit(written[:, :2], written[:, :2] + written[:, 2:], sizes)


def _are_centres(written: Numbers, sizes: Numbers) -> bool:
    half = written[:, 2:] / 2
    return _fit(written[:, :2] - half, written[:, :2] + half, sizes)


def _are_parts(written: Numbers, sizes: Numbers) -> bool:
    return bool((np.abs(written) <= _LARGEST_PART).all())


def _are_rows_first(written: Numbers, sizes: Numbers) -> bool:
    return _fit(written[:, 1::-1], written[:, :1:-1], sizes)


_OTHERS: dict[str, dict[str, Callable[[Numbers, Numbers], bool]]] = {
    'COCO': {
        'parts of the image (0 to 1)': _are_parts,
        CORNERS: _are_corners,
        'centre x, y, width, height': _are_centres,
    },
    'YOLO': {CORNERS: _are_corners, f'{SIDES} from the upper left corner': _are_sides},
    'Pascal VOC': {
        'parts of the image (0 to 1)': _are_parts,
        SIDES: _are_sides,
        'ymin, xmin, ymax, xmax': _are_rows_first,
    },
}
_OTHERS['csv'] = _OTHERS['Pascal VOC']
