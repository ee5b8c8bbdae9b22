"""What a set looks like as a whole: boxes in another form than their file's, names that are one."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from effdet_plugin.own_data.findings import MAX_QUOTED, Findings

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

# The share of boxes that must be mended from which a set is refused, whatever its form; and where
# those boxes fit another form.
_REFUSED_SHARE, _REFUSED_SHARE_IN_FORM = 0.5, 0.1
# Fewer boxes say nothing; from so many on, not one that contradicts another form is suspicious.
_FEWEST, _FEWEST_IN_FORM = 3, 8
# So many of the mended boxes must fit another form: there may be slips among them.
_MOST = 0.9
# An image may be left by this much before a box counts as wrong, pixels and part of its side.
_SLACK_PX, _SLACK = 2.0, 0.02
_LARGEST_PART = 1.5
# Numbers of percent, in images that are larger on one side at least by this.
_PERCENT, _LARGER_THAN_PERCENT = 100.5, 1.4
# Boxes of so many images that all stay within this part of both sides are of a smaller image.
_FEWEST_IMAGES, _UPPER_LEFT = 3, 0.6
# What the numbers of a box are, by the kind of annotations.
_WRITTEN = {
    'COCO': 'x, y, width, height in pixels',
    'YOLO': 'centre x, y, width, height in parts of the image',
    'Pascal VOC': 'xmin, ymin, xmax, ymax in pixels',
    'csv': 'xmin, ymin, xmax, ymax',
}
CORNERS, SIDES = 'corners (x1, y1, x2, y2)', 'x, y, width, height'

_ALIKE = 0.85  # similarity of letters from which a rare name is taken for a misspelt one
_SHORTEST_MISSPELT = 5  # letters; RBC and WBC differ by one
_RARE = 0.05  # of the boxes of the other name
_MOST_COMPARED = 1500  # names; each is compared with each


def note_form(
    source: str,
    file: str,
    corners: Sequence[Numbers],
    sizes: Sequence[Numbers],
    mended: Sequence[Mask],
    findings: Findings,
    are_turned: bool = False,
) -> None:
    """Note that the boxes of a set, or many of them, are probably in another form.

    Args:
        source: The kind of annotations, see `RawDataset`.
        file: For the finding.
        corners: (n, 4) of each image in pixels, as a reader understood them, neither sorted nor
            clipped.
        sizes: (n, 2) of each image, its width and height for each box.
        mended: (n,) of each image: boxes that were changed by more than rounding, or dropped.
        findings: ``boxes_are_corners`` or ``form_other`` (errors) or ``form_unsure`` (a remark).
        are_turned: EXIF tags turn all images with boxes by a quarter.
    """
    num_images = sum(map(bool, map(len, corners)))
    if not num_images:
        return
    set_of = np.concatenate(corners), np.concatenate(sizes), np.concatenate(mended)
    _note_other_form(source, file, *set_of, findings, are_turned)
    if num_images >= _FEWEST_IMAGES:
        _note_smaller_image(file, *set_of[:2], findings)


def _note_other_form(
    source: str,
    file: str,
    corners: Numbers,
    sizes: Numbers,
    mended: Mask,
    findings: Findings,
    are_turned: bool,
) -> None:
    count, num_mended = len(corners), int(mended.sum())
    if count < _FEWEST:
        return
    written = _as_written(source, corners)
    others = dict(_OTHERS[source])
    if are_turned and source in _OF_STORED:
        others = {_STORED: _OF_STORED[source], **others}
    fits = {name: holds(written, sizes) for name, holds in others.items()}
    whole = next((name for name, fit in fits.items() if fit.all()), '')
    # A box without extent fits many forms.
    told = mended & (corners[:, :2] != corners[:, 2:]).all(axis=1)
    enough = told.sum() >= _FEWEST and count >= _FEWEST_IN_FORM
    part = next((name for name, fit in fits.items() if enough and fit[told].mean() >= _MOST), '')
    likely, share = whole or part, num_mended / count
    shares = f'{num_mended} of {count}'
    fault = f'{shares} boxes leave their image or have no extent as {_WRITTEN[source]}'
    is_in_form = likely and count >= _FEWEST_IN_FORM
    if share > _REFUSED_SHARE or (is_in_form and share >= _REFUSED_SHARE_IN_FORM):
        if source == 'COCO' and likely == CORNERS:
            findings.add('boxes_are_corners', file, '', shares)
            return
        form = f'{likely}, which all of them fit' if likely else 'another form or image size'
        findings.add('form_other', file, '', f'{fault}; they look like {form}')
    elif part:
        findings.add(
            'form_unsure', file, '', f'{fault}, and fit as {part}: a part of the set may be so; '
            'all are taken as written'
        )  # fmt: skip
    elif is_in_form and _is_suspicious(source, whole, num_mended):
        findings.add(
            'form_unsure', file, '', f'all {count} boxes are taken as {_WRITTEN[source]}, and '
            f'would fit as {whole}, too'
        )  # fmt: skip


def _note_smaller_image(file: str, corners: Numbers, sizes: Numbers, findings: Findings) -> None:
    """Note that the boxes seem to be drawn on images of another size, or in percent."""
    right, bottom = (np.maximum(corners[:, :2], corners[:, 2:]) / sizes).max(axis=0)
    is_percent = corners.max() <= _PERCENT < sizes.max(axis=1).min() / _LARGER_THAN_PERCENT
    is_small = is_percent or max(right, bottom) <= _UPPER_LEFT
    if len(corners) >= _FEWEST_IN_FORM and max(right, bottom) > 0 and is_small:
        findings.add(
            'form_unsure', file, '', f'all {len(corners)} boxes lie in the upper left part of '
            f'their images (up to {right:.0%} of the width, {bottom:.0%} of the height), as those '
            'of smaller images (or percent) do; they are taken as written'
        )  # fmt: skip


def is_beyond(corners: Numbers, sizes: Numbers) -> Mask:
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
    return mended > 0 or (source in ('COCO', 'YOLO') and likely == CORNERS)


def _as_written(source: str, corners: Numbers) -> Numbers:
    """Return the four numbers of each box as its file has them, in pixels."""
    sides = corners[:, 2:] - corners[:, :2]
    if source == 'COCO':
        return np.hstack([corners[:, :2], sides])
    return np.hstack([corners[:, :2] + sides / 2, sides]) if source == 'YOLO' else corners


def _fit(low: Numbers, high: Numbers, sizes: Numbers) -> Mask:
    """Return which boxes have an extent and lie in their image."""
    return (low < high).all(axis=1) & ~is_beyond(np.hstack([low, high]), sizes)


def _are_corners(written: Numbers, sizes: Numbers) -> Mask:
    return _fit(written[:, :2], written[:, 2:], sizes)


def _are_sides(written: Numbers, sizes: Numbers) -> Mask:
    return _fit(written[:, :2], written[:, :2] + written[:, 2:], sizes)


def _are_centres(written: Numbers, sizes: Numbers) -> Mask:
    half = written[:, 2:] / 2
    return _fit(written[:, :2] - half, written[:, :2] + half, sizes)


def _are_parts(written: Numbers, sizes: Numbers) -> Mask:
    sizes_of = np.abs(written)
    is_part = (sizes_of > 0) & (sizes_of < 1)
    return np.asarray((sizes_of <= _LARGEST_PART).all(axis=1) & is_part.any(axis=1))


def _are_rows_first(written: Numbers, sizes: Numbers) -> Mask:
    return _fit(written[:, 1::-1], written[:, :1:-1], sizes)


def _are_sides_of_rows(written: Numbers, sizes: Numbers) -> Mask:
    return _are_sides(written[:, [1, 0, 3, 2]], sizes)


def _are_centres_of_height(written: Numbers, sizes: Numbers) -> Mask:
    # Pixels were made of parts of the image: with the other side's length.
    exchanged = written[:, [3, 2]] / sizes[:, ::-1] * sizes
    return _are_centres(np.hstack([written[:, :2], exchanged]), sizes)


def _are_of_stored_image(written: Numbers, sizes: Numbers) -> Mask:
    return _are_corners(written, sizes[:, ::-1])


def _are_sides_of_stored_image(written: Numbers, sizes: Numbers) -> Mask:
    return _are_sides(written, sizes[:, ::-1])


_OTHERS: dict[str, dict[str, Callable[[Numbers, Numbers], Mask]]] = {
    'COCO': {
        'parts of the image (0 to 1)': _are_parts,
        CORNERS: _are_corners,
        'centre x, y, width, height': _are_centres,
        'y, x, height, width': _are_sides_of_rows,
    },
    'YOLO': {
        CORNERS: _are_corners,
        f'{SIDES} from the upper left corner': _are_sides,
        'centre x, y, height, width': _are_centres_of_height,
    },
    'Pascal VOC': {
        'parts of the image (0 to 1)': _are_parts,
        SIDES: _are_sides,
        'centre x, y, width, height': _are_centres,
        'ymin, xmin, ymax, xmax': _are_rows_first,
    },
}
_OTHERS['csv'] = _OTHERS['Pascal VOC']
# Of a set whose images are all turned by a quarter by their EXIF tag.
_STORED = 'boxes of the image as it is stored, before its EXIF tag turns it'
_OF_STORED = {
    'COCO': _are_sides_of_stored_image,
    'Pascal VOC': _are_of_stored_image,
    'csv': _are_of_stored_image,
}


def names_alike(names: Sequence[str], counts: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Yield pairs of class names that may be one class, the rarer name first.

    Names that differ in case, blanks, hyphens or a plural s only; and names of at least five
    letters that differ by little, where one is rare beside the other (a misspelling). Names that
    differ in a number are two classes.

    Args:
        names: The classes.
        counts: Boxes of each.
    """
    number_of = dict(zip(names, counts, strict=True))
    plain = {name: one for name in names if (one := _plain_name(name))}
    groups: dict[str, list[str]] = defaultdict(list)
    for name, one in plain.items():
        groups[one].append(name)
    for group in groups.values():
        usual = max(group, key=number_of.__getitem__)
        yield from ((name, usual) for name in group if name != usual)
    short = [name for name in plain if len(name) <= MAX_QUOTED]
    for pair in combinations(short if len(short) <= _MOST_COMPARED else [], 2):
        rare, usual = sorted(pair, key=number_of.__getitem__)
        is_rare = number_of[rare] <= _RARE * number_of[usual]
        if is_rare and plain[rare] != plain[usual] and _is_misspelt(plain[rare], plain[usual]):
            yield rare, usual


def alike_name(name: str, others: Sequence[str]) -> str:
    """Return one of some names that is probably the same class as a name; '' if none is."""
    plain = _plain_name(name)
    for other in others[:_MOST_COMPARED] if len(name) <= MAX_QUOTED else []:
        known = _plain_name(other[:MAX_QUOTED])
        if plain and (plain == known or _is_misspelt(plain, known)):
            return other
    return ''


def _plain_name(name: str) -> str:
    """Return what names that are probably one class have in common: letters, and no plural s."""
    folded = unicodedata.normalize('NFKC', name).casefold()
    return ''.join(letter for letter in folded if letter.isalnum()).rstrip('s')


def _is_misspelt(one: str, other: str) -> bool:
    """Return whether two names differ by little; the length alone tells most pairs apart."""
    if min(len(one), len(other)) < _SHORTEST_MISSPELT or abs(len(one) - len(other)) > 1:
        return False
    if [letter for letter in one if letter.isdigit()] != [x for x in other if x.isdigit()]:
        return False
    matcher = SequenceMatcher(a=one, b=other)
    return matcher.quick_ratio() >= _ALIKE and matcher.ratio() >= _ALIKE
