"""A dataset in memory: as its files have it (``Raw...``), and as training sees it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from effdet_plugin.errors import DatasetError
from effdet_plugin.own_data.findings import Finding, Findings

Corners = tuple[float, float, float, float]  # x1, y1, x2, y2


class RawBox(NamedTuple):
    """One object as its file has it.

    Args:
        corners: ``x1, y1, x2, y2``, finite, in pixels or (``RawImage.relative``) in parts of
            the image; may lie outside, be empty, or (where two corners are written) in any order.
        name: The class.
        row: Where it is written, see `findings.Place`.
        crowd: Marked as an ignored region.
        difficult: Marked as difficult (VOC).
        area: Square pixels, None where the source does not say.
        id: Annotation id, None where there is none.
    """

    corners: Corners
    name: str
    row: str = ''
    crowd: bool = False
    difficult: bool = False
    area: float | None = None
    id: int | None = None


@dataclass
class RawImage:
    """One image as its annotations name it.

    Args:
        path: The image file that was found for it.
        source: Annotation file to name in findings.
        row: Where the image is named in it.
        size: Width and height as written, None where they are absent or make no sense.
        relative: The corners are parts of width and height instead of pixels.
        id: Image id where the source has whole numbers for it.
        boxes: Its objects.
    """

    path: Path
    source: str
    row: str = ''
    size: tuple[int, int] | None = None
    relative: bool = False
    id: int | None = None
    boxes: list[RawBox] = field(default_factory=list)


@dataclass
class RawDataset:
    """All that a reader found.

    Args:
        root: The folder that holds the images.
        source: ``COCO``, ``Pascal VOC``, ``YOLO`` or ``csv``.
        classes: Names in order, without doubles.
        splits: Images by ``train``, ``val`` and ``test``; an absent split has no key.
        findings: Noted so far.
    """

    root: Path
    source: str
    classes: list[str]
    splits: dict[str, list[RawImage]]
    findings: Findings


@dataclass(frozen=True, eq=False)
class Image:
    """One image with its boxes, upright as a viewer shows it.

    Args:
        id: Unique in its split.
        path: The image file.
        width: Of the upright image, pixels.
        height: Of the upright image, pixels.
        boxes: (n, 4) float64, ``x1, y1, x2, y2`` in pixels, inside the image, at least one pixel
            wide and high. An image without objects has (0, 4).
        labels: (n,) int64, index into the classes.
        crowd: (n,) bool, regions that evaluation ignores and that are no targets in training:
            crowds of COCO, difficult objects of VOC.
        difficult: (n,) bool, those of ``crowd`` that VOC marks as difficult.
        annotation_ids: (n,) int64, unique in the split.
        areas: (n,) float64, square pixels: of the object where the source says, else of the box.
    """

    id: int
    path: Path
    width: int
    height: int
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    annotation_ids: NDArray[np.int64]
    areas: NDArray[np.float64]


@dataclass(frozen=True)
class Split:
    """The images of one split, in the order of the annotations."""

    images: list[Image]

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Image]:
        return iter(self.images)

    @property
    def num_targets(self) -> int:
        """Number of boxes that are no crowd."""
        return sum(int((~image.crowd).sum()) for image in self.images)

    def class_counts(self, num_classes: int) -> NDArray[np.int64]:
        """Return the number of targets of each class, (num_classes,)."""
        counts = np.zeros(num_classes, dtype=np.int64)
        for image in self.images:
            counts += np.bincount(image.labels[~image.crowd], minlength=num_classes)
        return counts


@dataclass(frozen=True)
class DatasetDescription:
    """A dataset as training sees it.

    Args:
        root: The folder that holds the images.
        source: The kind of annotations, ``COCO``, ``Pascal VOC``, ``YOLO`` or ``csv``.
        classes: Names in the order of the labels.
        splits: ``train``, ``val`` and possibly ``test``; None where the data has no such split.
        findings: What was noted, errors first; reading prints nothing.
    """

    root: Path
    source: str
    classes: tuple[str, ...]
    splits: dict[str, Split | None]
    findings: list[Finding] = field(default_factory=list)

    @property
    def train(self) -> Split:
        """The training split; empty where nothing could be read."""
        return self.splits.get('train') or Split([])

    def remarks(self) -> list[str]:
        """Return one line for each finding that does not stop a training."""
        return [finding.message for finding in self.findings if not finding.is_error]

    def check(self) -> 'DatasetDescription':
        """Return the description if it can be trained on.

        Raises:
            DatasetError: There is an error among the findings. The message is the first error's,
                with the kinds of the others.
        """
        errors = [finding for finding in self.findings if finding.is_error]
        if errors:
            more = ', '.join(f'{finding.kind} ({finding.count})' for finding in errors[1:])
            raise DatasetError(errors[0].message + (f'; also: {more}' if more else ''))
        return self

    def with_remark(self, kind: str, detail: str) -> 'DatasetDescription':
        """Return a copy with one more finding, about the dataset as such."""
        findings = Findings()
        findings.add(kind, self.root.name, '', detail)
        return replace(self, findings=self.findings + findings.all())
