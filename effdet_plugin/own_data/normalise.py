"""Makes a description of what a reader found: image sizes, clipped boxes, labels, ids."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effdet_plugin.images import (
    DARK_BELOW,
    HALF_BRIGHT,
    Header,
    UnreadableImageError,
    dark,
    largest_value,
    read_header,
)
from effdet_plugin.own_data.dataset import (
    DatasetDescription,
    Image,
    RawBox,
    RawDataset,
    RawImage,
    Split,
)
from effdet_plugin.own_data.findings import MAX_QUOTED, Findings
from effdet_plugin.own_data.forms import is_beyond, names_alike, note_form

# Overlap that comes from rounding alone is cut off without a remark, pixels.
_ROUNDING_PX = 0.01
# Beyond this, "parts of the image" are pixels.
_LARGEST_RELATIVE = 2.0
# Larger ids are not exact in every reader of json.
_LARGEST_ID = 2**53
# A size that is off by this little comes from rounding when an image was scaled, pixels.
_SIZE_SLACK_PX = 2
# An image of more boxes costs minutes and gigabytes in every step.
_MOST_BOXES = 10_000
# So many images of 16 bits that use them say that the set does; to look decodes them.
_ENOUGH_BRIGHT = 16
# Annotations whose corners may be in any order: both are written.
_WITH_TWO_CORNERS = ('Pascal VOC', 'csv')


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
        self._source = raw.source
        self._all_corners: list[NDArray[np.float64]] = []
        self._all_sizes: list[NDArray[np.float64]] = []
        self._all_mended: list[NDArray[np.bool_]] = []
        self._dark: list[tuple[Path, int]] = []
        self._num_bright = 0  # images of 16 bits that use them
        self._brightest = 0  # their largest number
        self._turned: list[bool] = []  # whether each image with boxes is, by a quarter
        self._labels = {name: label for label, name in enumerate(raw.classes)}
        self._images = images
        self._next_image_id = _ids([image.id for image in images])
        # pycocotools takes a box of id 0 for one that nothing has found.
        self._next_box_id = _ids(
            [box.id for image in images for box in image.boxes], keep_zero=False
        )

    def split(self) -> Split:
        merged = self._merge_repeated()
        images = [self._image(image) for image in merged]
        file = merged[0].source if self._source == 'COCO' and merged else self._root.name
        boxes = self._all_corners, self._all_sizes, self._all_mended
        are_turned = bool(self._turned) and all(self._turned)
        note_form(self._source, file, *boxes, self._findings, are_turned)
        if self._num_bright and self._brightest < HALF_BRIGHT:
            bright = f'0 to {self._brightest} of 65535'
            self._findings.add('image_dim', file, '', bright)
        for path, largest in self._dark if len(self._dark) > self._num_bright else []:
            self._findings.add('image_dark', self._short(path), '', dark(largest))
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
            header = read_header(raw.path)
            self._note_depth(raw.path, header)
        except UnreadableImageError as error:
            self._findings.add('image_unreadable', self._short(raw.path), '', error)
            return None
        width, height = header.size
        if not self._size_fits(raw, width, height):
            return None
        self._note_image(raw, header)
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

    def _short(self, path: Path) -> str:
        inside = path.is_relative_to(self._root)
        return path.relative_to(self._root).as_posix() if inside else str(path)

    def _note_depth(self, path: Path, header: Header) -> None:
        """Collect nearly black images of 16 bits until some show that the set uses them all."""
        enough = self._num_bright > len(self._dark) and self._num_bright >= _ENOUGH_BRIGHT
        if header.has_16_bits and not enough:
            largest = largest_value(path)
            if 0 < largest < DARK_BELOW:
                self._dark.append((path, largest))
            elif largest:
                self._num_bright += 1
                self._brightest = max(self._brightest, largest)

    def _note_image(self, raw: RawImage, header: Header) -> None:
        width, height = header.size
        if raw.boxes:
            self._turned.append(header.is_quarter_turned)
        if not raw.boxes:
            self._findings.add('image_without_objects', self._short(raw.path))
        elif len(raw.boxes) > _MOST_BOXES:
            count = f'{len(raw.boxes)} boxes'
            self._findings.add('boxes_too_many', raw.source, raw.row, count)
        # A written size of the turned image says that the tool has turned it, too.
        elif header.orientation > 1 and not (
            header.is_quarter_turned and raw.size == (width, height) and width != height
        ):
            self._findings.add('image_turned', self._short(raw.path))

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
        swapped = np.zeros(len(corners), dtype=bool)
        sides = np.tile(np.array([[width, height]], dtype=np.float64), (len(corners), 1))
        self._all_corners.append(corners)
        self._all_sizes.append(sides)
        if self._source in _WITH_TWO_CORNERS:
            swapped |= (corners[:, :2] > corners[:, 2:]).any(axis=1)
            low, high = corners[:, :2], corners[:, 2:]
            corners = np.hstack([np.minimum(low, high), np.maximum(low, high)])
        clipped = np.clip(corners, 0, (width, height, width, height))
        faults = _faults(corners, clipped)
        dropped = np.array([fault not in ('', 'box_clipped') for fault in faults], dtype=np.bool_)
        self._all_mended.append(swapped | dropped | is_beyond(corners, sides))
        for place in np.flatnonzero(swapped):
            self._findings.add('box_swapped', raw.source, raw.boxes[place].row)
        for box, fault in zip(raw.boxes, faults, strict=True):
            if fault:
                self._findings.add(fault, raw.source, box.row)
            if box.difficult:
                self._findings.add('difficult', raw.source, box.row)
        kept = [place for place, fault in enumerate(faults) if fault in ('', 'box_clipped')]
        boxes = [raw.boxes[place] for place in kept]
        self._note_same(raw, clipped[kept], boxes)
        return clipped[kept], boxes

    def _note_same(self, raw: RawImage, corners: NDArray[np.float64], boxes: list[RawBox]) -> None:
        seen: set[object] = set()
        for box, place in zip(boxes, corners.tolist(), strict=True):
            key = (box.name, *place)
            if box.crowd or box.difficult:
                continue
            if key in seen:
                self._findings.add('box_same', raw.source, box.row)
            seen.add(key)

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


def _ids(written: list[int | None], keep_zero: bool = True) -> Callable[[int | None], int]:
    """Keep ids that are whole numbers and unique, else count from 1.

    Args:
        written: All ids.
        keep_zero: False: 0 becomes the number after the largest one.
    """
    usable = all(number is not None and 0 <= number < _LARGEST_ID for number in written)
    if usable and len(set(written)) == len(written):
        of_zero = 0 if keep_zero else max(filter(None, written), default=0) + 1
        return lambda number: number or of_zero
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
        if len(name) > MAX_QUOTED:
            findings.add('class_too_long', description.root.name, '', name)
        if not train[label]:
            kind = 'class_only_here' if total[label] else 'class_unused'
            findings.add(kind, description.root.name, '', name)
    counts = dict(zip(description.classes, map(int, total), strict=True))
    for rare, usual in names_alike(list(counts), list(counts.values())):
        detail = f'{rare!r} ({counts[rare]} boxes) and {usual!r} ({counts[usual]})'
        findings.add('class_alike', description.root.name, '', detail)
