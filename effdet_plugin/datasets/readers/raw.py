"""What the readers of the single formats hand on: names, numbers and places as written."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from effdet_plugin.datasets.readers.findings import Findings


class RawBox(NamedTuple):
    """One object as its file has it.

    Args:
        corners: ``x1, y1, x2, y2``, finite, in pixels or (``RawImage.relative``) in parts of
            the picture; may lie outside or be empty.
        name: The class.
        row: Where it stands, as :class:`~.findings.Place` wants it.
        crowd: Marked as an ignored region.
        difficult: Marked as difficult (VOC).
        area: Square pixels, None where the source does not tell.
        id: Annotation id, None where there is none.
    """

    corners: tuple[float, float, float, float]
    name: str
    row: str = ''
    crowd: bool = False
    difficult: bool = False
    area: float | None = None
    id: int | None = None


@dataclass
class RawImage:
    """One picture as its annotations name it.

    Args:
        path: The picture that was found for it.
        source: Annotation file to name in findings.
        row: Where the picture stands in it.
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
        root: The folder that holds the pictures.
        source: The kind of annotations.
        classes: Names in order, without doubles.
        splits: Pictures by ``train``, ``val`` and ``test``; a split that is not there is absent.
        findings: Noted so far.
    """

    root: Path
    source: str
    classes: list[str]
    splits: dict[str, list[RawImage]]
    findings: Findings
