"""Overlapping tiles of a large image, and which detections of theirs a border has cut.

Sliced inference: Akyon, Altinuc, Temizel, "Slicing aided hyper inference and fine-tuning for small
object detection", ICIP 2022. There overlapping detections are merged by their intersection over the
smaller box, wherever they lie, which also joins a small object with a larger one of its class in
front of which it is. Here only boxes that a border has cut are treated so: a short one is dropped,
since a neighbour holds the object whole, a long one where another box covers it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Size = tuple[int, int]
Window = tuple[int, int, int, int]

# A side of a box that is nearer to its tile's border than this share of the box's length is cut.
CUT_MARGIN = 0.15
# A cut box of which another box covers this share is a part of it.
COVERED = 0.7
# The other box must be about as sure, or noise of low score would remove what is sure.
SCORE_SHARE = 0.5


@dataclass(frozen=True)
class TileList:
    """The prepared tiles of one image; no Sequence, so that collating leaves it as it is.

    Attributes:
        views: What the rest of the pipeline made of each tile.
        windows: Their pixels (x1, y1, x2, y2) in the image.
        image_size: (height, width) of the image.
        overlap: Share of a tile's sides that neighbours have in common, at least.
    """

    views: list[Any]
    windows: list[Window]
    image_size: Size
    overlap: float


def tile_windows(image_size: Size, tile_size: Size, overlap: float) -> list[Window]:
    """Cover an image with tiles of one size, row by row, as evenly as whole pixels allow.

    Args:
        image_size: (height, width) in pixels.
        tile_size: (height, width); a side longer than the image's is cut to it.
        overlap: Least share of a tile's side that neighbours have in common, 0 to below 1.

    Returns:
        (x1, y1, x2, y2) of each tile; all lie inside the image.
    """
    rows, columns = (
        list(_starts(length, min(side, length), overlap))
        for length, side in zip(image_size, tile_size, strict=True)
    )
    height, width = (min(a, b) for a, b in zip(image_size, tile_size, strict=True))
    return [(x, y, x + width, y + height) for y in rows for x in columns]


def tile_size_of_grid(image_size: Size, grid: Size, overlap: float) -> Size:
    """Return the (height, width) of tiles of which a grid covers an image.

    Args:
        image_size: (height, width) in pixels.
        grid: Number of (rows, columns).
        overlap: See `tile_windows`.
    """
    height, width = (
        math.ceil(length / (count - (count - 1) * overlap))
        for length, count in zip(image_size, grid, strict=True)
    )
    return height, width


def cut_sides(boxes: Tensor, window: Window, image_size: Size) -> Tensor:
    """Return at which sides a border of their tile has cut boxes.

    Args:
        boxes: ``(N, 4)`` xyxy in pixels of the image.
        window: The tile's.
        image_size: (height, width); a border of the tile that is the image's own cuts nothing.

    Returns:
        ``(N, 4)`` bool: left, top, right, bottom.
    """
    tile = boxes.new_tensor(window)
    inner = tile.new_tensor([0, 0, image_size[1], image_size[0]]) != tile
    lengths = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    # How far a side is from its border, inwards; negative beyond it.
    distances = (boxes - tile) * boxes.new_tensor([1, 1, -1, -1])
    return (distances < CUT_MARGIN * lengths) & inner


def whole_elsewhere(boxes: Tensor, sides: Tensor, overlap: tuple[float, float]) -> Tensor:
    """Return which boxes are so short that the neighbour beyond their border holds them whole.

    Args:
        boxes: ``(N, 4)`` xyxy in pixels of the image.
        sides: ``(N, 4)`` bool, see `cut_sides`.
        overlap: What neighbours have in common on the axes x and y, in pixels.

    Returns:
        ``(N,)`` bool.
    """
    # With the margins of both borders, so that the neighbour does not take it for cut as well.
    lengths = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2) * (1 + 2 * CUT_MARGIN)
    return (sides & (lengths <= boxes.new_tensor([*overlap, *overlap]))).any(1)


def parts_of_others(boxes: Tensor, scores: Tensor, views: Tensor, is_cut: Tensor) -> Tensor:
    """Return which boxes are parts of objects that another view holds whole.

    Args:
        boxes: ``(N, 4)`` xyxy in pixels of the image.
        scores: ``(N,)``.
        views: ``(N,)`` int64, which view each comes from.
        is_cut: ``(N,)`` bool, with a side that is cut.

    Returns:
        ``(N,)`` bool: cut, and covered by a box that is not, of another view and of any class (a
        part often looks like something else).
    """
    rows, whole = is_cut.nonzero()[:, 0], (~is_cut).nonzero()[:, 0]
    result = torch.zeros_like(is_cut)
    if not len(rows) or not len(whole):
        return result
    cut, other = boxes[rows][:, None], boxes[whole][None]
    low = torch.maximum(cut[..., :2], other[..., :2])
    high = torch.minimum(cut[..., 2:], other[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area = (cut[..., 2:] - cut[..., :2]).clamp(min=0).prod(-1)
    covers = shared >= COVERED * area
    covers &= views[rows][:, None] != views[whole][None]
    covers &= scores[whole][None] >= SCORE_SHARE * scores[rows][:, None]
    result[rows] = covers.any(1)
    return result


def _starts(length: int, side: int, overlap: float) -> Iterator[int]:
    """Yield where the tiles begin on one axis."""
    step = max(1.0, side * (1 - overlap))
    # A rounded-up side of a grid's tile must not need one more tile for a fraction of a pixel.
    count = 1 + max(0, math.ceil((length - side) / step - 1e-6))
    for index in range(count):
        yield round(index * (length - side) / max(1, count - 1))
