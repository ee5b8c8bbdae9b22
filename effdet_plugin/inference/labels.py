"""Where the labels of boxes go: beside their boxes, inside the image, never over each other."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_COVERED_SHARE = 0.25  # of the image, by all labels: the objects stay visible
Rectangle = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels; x2 and y2 are outside


def place_labels(
    boxes: Sequence[Rectangle], sizes: Sequence[tuple[int, int]], image_size: tuple[int, int]
) -> list[Rectangle | None]:
    """Return a place for the label of each box; None where there is no free one.

    All labels together cover at most `MAX_COVERED_SHARE` of the image.

    Each label takes the first free place of: above its box, inside at the top, below, inside at the
    bottom, each on the left and then on the right, at last beside the box. Places that cover no
    corner of another box are tried before the others, since corners show where a box ends.

    Args:
        boxes: In order of importance: earlier ones choose first.
        sizes: (width, height) of each label.
        image_size: (width, height) of the image; all labels are inside it.
    """
    corners = _corners(boxes)
    room = MAX_COVERED_SHARE * image_size[0] * image_size[1]
    taken = np.zeros((0, 4), np.int64)
    places: list[Rectangle | None] = []
    for index, (box, size) in enumerate(zip(boxes, sizes, strict=True)):
        others = np.delete(corners, slice(4 * index, 4 * index + 4), axis=0)
        fits = size[0] * size[1] <= room or not places
        candidates = _candidates(box, size, image_size) if fits else []
        place = _free_place(candidates, taken, others)
        places.append(place)
        if place is not None:
            room -= size[0] * size[1]
            taken = np.concatenate([taken, np.array([place])])
    return places


def _free_place(
    candidates: Sequence[Rectangle], taken: NDArray[np.int64], corners: NDArray[np.int64]
) -> Rectangle | None:
    """Return the first candidate that overlaps no taken place, if possible over no corner."""
    free = [place for place in candidates if not _overlaps(place, taken)]
    clear = [place for place in free if not _covers(place, corners)]
    return next(iter(clear or free), None)


def _candidates(
    box: Rectangle, size: tuple[int, int], image_size: tuple[int, int]
) -> list[Rectangle]:
    """Return the places beside a box that are inside the image, best first."""
    (x1, y1, x2, y2), (width, height) = box, size
    rows = (y1 - height, y1, y2, y2 - height)  # above, inside at the top, below, at the bottom
    # A label that is wider than what is left of the image moves to the left.
    columns = (max(0, min(x1, image_size[0] - width)), max(0, x2 - width))
    corners = [(x, y) for y in rows for x in columns]
    corners += [(x2, y1), (x1 - width, y1), (x2, y2 - height), (x1 - width, y2 - height)]
    placed = [(x, y, x + width, y + height) for x, y in dict.fromkeys(corners)]
    return [
        place
        for place in placed
        if place[0] >= 0
        and place[1] >= 0
        and place[2] <= image_size[0]
        and place[3] <= image_size[1]
    ]


def _corners(boxes: Sequence[Rectangle]) -> NDArray[np.int64]:
    """Return the four corners of each box, one after the other: (4 N, 2) as x, y."""
    array = np.array(boxes, np.int64).reshape(-1, 4)
    return array[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 2)


def _overlaps(place: Rectangle, taken: NDArray[np.int64]) -> bool:
    x1, y1, x2, y2 = place
    inside = (taken[:, 0] < x2) & (taken[:, 2] > x1) & (taken[:, 1] < y2) & (taken[:, 3] > y1)
    return bool(inside.any())


def _covers(place: Rectangle, corners: NDArray[np.int64]) -> bool:
    x1, y1, x2, y2 = place
    x, y = corners[:, 0], corners[:, 1]
    return bool(((x >= x1) & (x < x2) & (y >= y1) & (y < y2)).any())
