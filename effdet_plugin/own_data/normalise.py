"""Makes a description of what a reader found: image sizes, clipped boxes, labels, ids."""

import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from effdet_plugin.own_data.dataset import (
    DatasetDescription,
    Image,
    RawBox,
    RawDataset,
    RawImage,
    Split,
)
from effdet_plugin.own_data.findings import Findings

# Overlap that comes from rounding alone is cut off without a remark, pixels.
_ROUNDING_PX = 0.01
# Beyond this, "parts of the image" are pixels.
_LARGEST_RELATIVE = 2.0
# Larger ids are not exact in every reader of json.
_LARGEST_ID = 2**53
# A size that is off by this little comes from rounding when an image was scaled, pixels.
_SIZE_SLACK_PX = 2
# Tag 274 of EXIF; from 5 on the image is turned by a quarter.
_ORIENTATION, _FIRST_QUARTER_TURN = 274, 5
# Last bytes of a complete file. Cameras may append more to a JPEG, so a long tail is searched.
_USUAL_TAIL = 64
_ENDS = {'JPEG': (b'\xff\xd9', 65536), 'PNG': (b'IEND', 64)}


def describe(raw: RawDataset) -> DatasetDescription:
    """Return the description of what a reader found.

    Args:
        raw: Names, corners and places as written.
    """
    splits: dict[str, Split | None] = {'train': None, 'val': None}
    for name, images in raw.splits.items():
        splits[name] = _Normaliser(raw, images).split()
    description = DatasetDescription(raw.root, raw.source, tuple(raw.classes), splits)
    _note_splits(description, raw.findings)
    _note_classes(description, raw.findings)
    return replace(description, findings=raw.findings.all())


class _Normaliser:
    """The images of one split with final sizes, boxes, labels and ids."""

    def __init__(self, raw: RawDataset, images: list[RawImage]) -> None:
        self._findings = raw.findings
        self._root = raw.root
        self._labels = {name: label for label, name in enumerate(raw.classes)}
        self._images = images
        self._next_image_id = _ids([image.id for image in images])
        self._next_box_id = _ids([box.id for image in images for box in image.boxes])

    def split(self) -> Split:
        images = [self._image(image) for image in self._merge_repeated()]
        return Split([image for image in images if image is not None])

    def _merge_repeated(self) -> list[RawImage]:
        first: dict[Path, RawImage] = {}
        for image in self._images:
            known = first.setdefault(image.path, image)
            if known is not image:
                self._findings.add('image_repeated', image.source, image.row, image.path.name)
                known.boxes.extend(image.boxes)
        return list(first.values())

    def _image(self, raw: RawImage) -> Image | None:
        image_id = self._next_image_id(raw.id)
        try:
            width, height = upright_size(raw.path)
        except UnreadableImageError as error:
            inside = raw.path.is_relative_to(self._root)
            short = raw.path.relative_to(self._root).as_posix() if inside else raw.path
            self._findings.add('image_unreadable', short, '', error)
            return None
        if not self._size_fits(raw, width, height):
            return None
        boxes, kept = self._boxes(raw, width, height)
        return Image(
            id=image_id,
            path=raw.path,
            width=width,
            height=height,
            boxes=boxes,
            labels=np.array([self._labels[box.name] for box in kept], dtype=np.int64),
            crowd=np.array([box.crowd or box.difficult for box in kept], dtype=bool),
            difficult=np.array([box.difficult for box in kept], dtype=bool),
            annotation_ids=np.array([self._next_box_id(box.id) for box in kept], dtype=np.int64),
            areas=_areas(boxes, kept),
        )

    def _size_fits(self, raw: RawImage, width: int, height: int) -> bool:
        if raw.size is None or raw.size == (width, height):
            return True
        detail = f'{raw.size[0]}x{raw.size[1]} written, {width}x{height} in {raw.path.name}'
        slack = max(abs(raw.size[0] - width), abs(raw.size[1] - height))
        # Boxes that fit the written size alone were drawn before the image was turned upright.
        if raw.size == (height, width) and (_fits(raw, width, height) or not _fits(raw, *raw.size)):
            kind = 'size_swapped'
        else:
            kind = 'size_off' if slack <= _SIZE_SLACK_PX or raw.relative else 'size_other'
        self._findings.add(kind, raw.source, raw.row, detail)
        return kind != 'size_other'

    def _boxes(
        self, raw: RawImage, width: int, height: int
    ) -> tuple[NDArray[np.float64], list[RawBox]]:
        corners = np.array([box.corners for box in raw.boxes], dtype=np.float64).reshape(-1, 4)
        if raw.relative:
            self._note_pixels(raw, corners)
            corners = corners * (width, height, width, height)
        clipped = np.clip(corners, 0, (width, height, width, height))
        faults = _faults(corners, clipped)
        for box, fault in zip(raw.boxes, faults, strict=True):
            if fault:
                self._findings.add(fault, raw.source, box.row)
            if box.difficult:
                self._findings.add('difficult', raw.source, box.row)
        kept = [place for place, fault in enumerate(faults) if fault in ('', 'box_clipped')]
        return clipped[kept], [raw.boxes[place] for place in kept]

    def _note_pixels(self, raw: RawImage, corners: NDArray[np.float64]) -> None:
        for place in np.flatnonzero((np.abs(corners) > _LARGEST_RELATIVE).any(axis=1)):
            written = ', '.join(f'{number:g}' for number in corners[place])
            self._findings.add('box_relative', raw.source, raw.boxes[place].row, written)


def _fits(raw: RawImage, width: int, height: int) -> bool:
    """Return whether all boxes lie in an image of this size."""
    return raw.relative or all(
        box.corners[2] <= width + _SIZE_SLACK_PX and box.corners[3] <= height + _SIZE_SLACK_PX
        for box in raw.boxes
    )


def _faults(corners: NDArray[np.float64], clipped: NDArray[np.float64]) -> list[str]:
    """Return the kind of finding of each box, '' for one without fault."""
    sides, inside = corners[:, 2:] - corners[:, :2], clipped[:, 2:] - clipped[:, :2]
    kinds = {
        'box_negative': (sides < 0).any(axis=1),
        'box_empty': (sides == 0).any(axis=1),
        'box_outside': (inside <= 0).any(axis=1),
        'box_thin': (inside < 1).any(axis=1),
        'box_clipped': np.abs(corners - clipped).max(axis=1, initial=0) > _ROUNDING_PX,
    }
    return [str(kind) for kind in np.select(list(kinds.values()), list(kinds), default='')]


def _areas(boxes: NDArray[np.float64], kept: list[RawBox]) -> NDArray[np.float64]:
    written = np.array([box.area or 0.0 for box in kept], dtype=np.float64)
    return np.where(written > 0, written, (boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


def _ids(written: list[int | None]) -> Callable[[int | None], int]:
    """Keep ids that are whole numbers and unique, else count from 1."""
    usable = all(number is not None and 0 <= number < _LARGEST_ID for number in written)
    if usable and len(set(written)) == len(written):
        return lambda number: number if number is not None else 0
    counter = iter(range(1, len(written) + 1))
    return lambda _: next(counter)


def _note_splits(description: DatasetDescription, findings: Findings) -> None:
    train = description.train
    paths = {image.path for image in train}
    for name in ('val', 'test'):
        split = description.splits.get(name) or Split([])
        if split.images and not split.num_targets:
            findings.add('split_without_boxes', description.root.name, '', name)
        for image in split:
            if image.path in paths:
                findings.add('image_in_two_splits', image.path.name, '', f'train and {name}')
    if not train.images:
        findings.add('nothing_to_learn', description.root, '', 'no image to train on')
    elif not train.num_targets:
        crowds = sum(len(image.boxes) for image in train)
        why = f'all {crowds} boxes are crowd (iscrowd) or difficult' if crowds else 'no box at all'
        findings.add('nothing_to_learn', description.root, '', f'{why}: nothing to train on')


def _note_classes(description: DatasetDescription, findings: Findings) -> None:
    num_classes = len(description.classes)
    splits = [split for split in description.splits.values() if split is not None]
    total = sum((split.class_counts(num_classes) for split in splits), np.zeros(num_classes))
    train = description.train.class_counts(num_classes)
    for label, name in enumerate(description.classes):
        if not train[label]:
            kind = 'class_only_here' if total[label] else 'class_unused'
            findings.add(kind, description.root.name, '', name)


class UnreadableImageError(Exception):
    """The file is no image, or an incomplete one; the text says why."""


def upright_size(path: Path) -> tuple[int, int]:
    """Return width and height of an image as it is shown, its orientation tag obeyed.

    Reads the header and the last bytes; only a file that ends too early is decoded.

    Args:
        path: An image; its content counts, not its suffix.

    Raises:
        UnreadableImageError: It is missing, no image, or cut short.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Pillow.DecompressionBombWarning)
            with path.open('rb') as file, Pillow.open(file) as image:
                width, height = image.size
                turned = _orientation(image) >= _FIRST_QUARTER_TURN
                if not _is_complete(file, image.format):
                    image.load()
    except (OSError, ValueError, SyntaxError, EOFError, Pillow.DecompressionBombError) as error:
        raise UnreadableImageError(_reason(path, error)) from error
    return (height, width) if turned else (width, height)


def _orientation(image: Pillow.Image) -> int:
    # Pillow decodes a PNG to look for a tag behind the pixels; image readers ignore it there.
    if image.format == 'PNG' and 'exif' not in image.info:
        return 1
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _is_complete(file: BinaryIO, form: str | None) -> bool:
    if form not in _ENDS:
        return True
    mark, longest = _ENDS[form]
    end = file.seek(0, os.SEEK_END)
    for length in (_USUAL_TAIL, longest):
        file.seek(max(0, end - length))
        if mark in file.read():
            return True
    return False


def _reason(path: Path, error: Exception) -> str:
    if not path.exists():
        return 'no such file'
    if path.stat().st_size == 0:
        return 'the file is empty'
    return 'no known image format' if isinstance(error, UnidentifiedImageError) else str(error)
