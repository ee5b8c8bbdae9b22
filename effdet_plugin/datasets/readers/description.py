"""The one plain description of a data set that every reader ends in."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effdet_plugin.datasets.readers.findings import Finding, raise_errors


@dataclass(frozen=True, eq=False)
class Image:
    """One picture with its boxes, upright as a viewer shows it.

    Args:
        id: Unique in its split.
        path: Where the picture is.
        width: Of the upright picture, pixels.
        height: Of the upright picture, pixels.
        boxes: (n, 4) float64, ``x1, y1, x2, y2`` in pixels, inside the picture, at least one
            pixel wide and high. A picture without objects has (0, 4).
        labels: (n,) int64, index into the classes.
        crowd: (n,) bool, regions that evaluation ignores and that are no targets in training:
            crowds of COCO, difficult objects of VOC.
        difficult: (n,) bool, those of ``crowd`` that VOC marks as difficult.
        annotation_ids: (n,) int64, unique in the split.
        areas: (n,) float64, square pixels: of the object where the source tells, else of the box.
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

    @property
    def num_targets(self) -> int:
        """Boxes that are no crowd."""
        return int((~self.crowd).sum())


@dataclass(frozen=True)
class Split:
    """The pictures of one split, in the order of the annotations."""

    images: list[Image]

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Image]:
        return iter(self.images)

    @property
    def num_targets(self) -> int:
        """Boxes of all pictures that are no crowd."""
        return sum(image.num_targets for image in self.images)

    def class_counts(self, num_classes: int) -> NDArray[np.int64]:
        """Number of targets of each class, (num_classes,)."""
        counts = np.zeros(num_classes, dtype=np.int64)
        for image in self.images:
            counts += np.bincount(image.labels[~image.crowd], minlength=num_classes)
        return counts


@dataclass(frozen=True)
class DatasetDescription:
    """A data set as training and the checker see it.

    Args:
        root: The folder that holds the pictures.
        source: The kind of annotations, ``COCO``, ``Pascal VOC``, ``YOLO`` or ``csv``.
        classes: Names in the order of the labels.
        splits: ``train``, ``val`` and perhaps ``test``; None where the data has no such split.
        findings: What was noted, errors first; nothing is printed by the readers.
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
        """One line for each finding that does not stop a training."""
        return [found.message for found in self.findings if found.severity == 'remark']

    def errors(self) -> list[str]:
        """One line for each finding that stops a training."""
        return [found.message for found in self.findings if found.severity == 'error']

    def check(self) -> 'DatasetDescription':
        """Return itself if it can be trained on.

        Raises:
            DatasetError: If there is a finding that is an error; its first line.
        """
        raise_errors(self.findings)
        return self

    def changed(self, **fields: Any) -> 'DatasetDescription':
        """A copy with some fields replaced."""
        return replace(self, **fields)
