"""The box of a COCO annotation, whatever form it has."""

from itertools import chain
from typing import Any

from effdet_plugin.datasets.readers.findings import Findings
from effdet_plugin.datasets.readers.images import UnreadableImageError, upright_size
from effdet_plugin.datasets.readers.numbers import is_finite, number
from effdet_plugin.datasets.readers.raw import RawImage

Corners = tuple[float, float, float, float]
#: One side of a picture may be exceeded by this much before a box counts as leaving it, pixels.
_SLACK_PX = 1.5


def corners_of(
    annotation: dict[str, Any], file: str, row: str, findings: Findings
) -> Corners | None:
    """The corners ``x1, y1, x2, y2`` of an annotation, None (and a finding) if it has none.

    Args:
        annotation: With ``bbox`` as four numbers, as texts or as an object; without one its
            outline gives the box.
        file: For findings.
        row: For findings.
        findings: Noted here.
    """
    written = annotation.get('bbox')
    if isinstance(written, dict):
        written = [written.get(key) for key in ('x', 'y', 'width', 'height')]
    if not written:
        return _from_outline(annotation.get('segmentation'), file, row, findings)
    values = [number(value) for value in written] if isinstance(written, list) else []
    numbers = [value for value in values if value is not None]
    if len(values) != 4 or len(numbers) != 4:
        findings.add('box_not_numbers', file, row, written)
        return None
    if not is_finite(numbers):
        findings.add('box_not_finite', file, row, written)
        return None
    x, y, width, height = numbers
    return x, y, x + width, y + height


def look_like_corners(images: list[RawImage]) -> tuple[int, int]:
    """How many boxes leave their picture although they would fit as corners, and of how many.

    Returns:
        (0, total) unless most boxes leave and every one would fit as ``x1, y1, x2, y2``.
    """
    boxes = [(image, box.corners) for image in images for box in image.boxes]
    # As they would be if corners were written: the second point less the first.
    if not all(x1 < x2 - x1 and y1 < y2 - y1 for _, (x1, y1, x2, y2) in boxes):
        return 0, len(boxes)
    sizes = {image.path: image.size or _own_size(image) for image, _ in boxes}
    limits = [[side + _SLACK_PX for side in sizes[image.path]] for image, _ in boxes]
    outside = [
        x2 > width or y2 > height
        for (_, (_, _, x2, y2)), (width, height) in zip(boxes, limits, strict=True)
    ]
    fitting = [
        x2 - x1 <= width and y2 - y1 <= height
        for (_, (x1, y1, x2, y2)), (width, height) in zip(boxes, limits, strict=True)
    ]
    return (sum(outside) if all(fitting) and 2 * sum(outside) > len(boxes) else 0), len(boxes)


def _own_size(image: RawImage) -> tuple[int, int]:
    try:
        return upright_size(image.path)
    except UnreadableImageError:
        return 0, 0


def _from_outline(outline: object, file: str, row: str, findings: Findings) -> Corners | None:
    points = _points(outline)
    if not points or len(points) % 2 or not is_finite(points):
        findings.add('box_missing', file, row)
        return None
    findings.add('box_from_outline', file, row)
    return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])


def _points(outline: object) -> list[float]:
    """All points of polygons: a list of lists, or (VIA) one flat list."""
    if not isinstance(outline, list):
        return []
    nested = [part if isinstance(part, list) else [part] for part in outline]
    values = [number(value) for value in chain.from_iterable(nested)]
    return [value for value in values if value is not None]
