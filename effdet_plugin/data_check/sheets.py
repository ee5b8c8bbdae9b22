"""The images of a report: samples with their boxes, faults, and box sizes beside the anchors."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from effdet_plugin.data_check.anchors import REACH_IOU, Reach
from effdet_plugin.errors import DatasetError
from effdet_plugin.files import RGBImage, replacing, write_image
from effdet_plugin.images import read_image
from effdet_plugin.inference.draw import Drawable, draw_boxes
from effdet_plugin.own_data.dataset import DatasetDescription, Image

_TILE_PX = 400
_COLUMNS, _ROWS = 3, 4
_GAP_PX = 6
_DRAWN_BOXES = 20000  # dots in the chart


class CopiedImage(NamedTuple):
    """Two entries of one image, each with its split."""

    split: str
    image: Image
    other_split: str
    other: Image


class TwiceDrawn(NamedTuple):
    """Two boxes of an image, by their places, that are one object."""

    image: Image
    first: int
    second: int


def draw_sheets(
    description: DatasetDescription,
    copies: Sequence[CopiedImage],
    twice: Sequence[TwiceDrawn],
    reach: Reach | None,
    folder: Path,
) -> dict[str, Path]:
    """Write the images of a report.

    Args:
        description: Its images are sampled evenly.
        copies: The first pairs are drawn, with all their boxes.
        twice: The first pairs are drawn, magnified.
        reach: For the chart; None: no chart.
        folder: Where ``samples.jpg``, ``twice.jpg``, ``copies.jpg`` and ``boxes.png`` go; an image
            without content is not written.

    Returns:
        The files by their titles.
    """
    classes = description.classes
    every = [image for split in description.splits.values() for image in split or []]
    step = max(1, len(every) // (_COLUMNS * _ROWS))
    samples = [_tile(image, classes) for image in every[::step][: _COLUMNS * _ROWS]]
    pairs = [
        _tile(image, classes, [first, second]) for image, first, second in twice[: _COLUMNS * _ROWS]
    ]
    equal = [_tile(image, classes) for copy in copies[:_ROWS] for image in (copy.image, copy.other)]
    sheets = {
        'Samples': ('samples.jpg', samples, _COLUMNS),
        'Boxes that are there twice': ('twice.jpg', pairs, _COLUMNS),
        'Images that are there twice': ('copies.jpg', equal, 2),
    }
    written = {}
    for title, (name, tiles, columns) in sheets.items():
        if tiles:
            written[title] = folder / name
            write_image(written[title], _sheet(tiles, columns))
    if reach is not None and len(reach.boxes):
        written['Boxes in pixels of the network input'] = folder / 'boxes.png'
        _draw_chart(reach, folder / 'boxes.png')
    return written


def _tile(image: Image, classes: Sequence[str], places: Sequence[int] | None = None) -> RGBImage:
    """Draw an image with its boxes (or those at some places, magnified), 400 pixels wide."""
    chosen = np.arange(len(image.boxes)) if places is None else np.asarray(places)
    boxes, labels = image.boxes[chosen], image.labels[chosen]
    try:
        pixels = read_image(image.path)
    except DatasetError:  # removed since
        return np.full((_TILE_PX, _TILE_PX, 3), 255, np.uint8)
    if places is not None:
        pixels, boxes = _magnified(pixels, boxes)
    factor = _TILE_PX / max(pixels.shape[:2])
    size = tuple(max(1, round(side * factor)) for side in pixels.shape[1::-1])
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    drawn = draw_boxes(small, Drawable((boxes * factor).astype(np.float32), labels), classes)
    return np.pad(drawn, ((0, 0), (0, _TILE_PX - drawn.shape[1]), (0, 0)), constant_values=255)


def _magnified(
    pixels: RGBImage, boxes: NDArray[np.float64]
) -> tuple[RGBImage, NDArray[np.float64]]:
    """Cut out the boxes with as much around them again."""
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    margin = (high - low).max() / 2
    x1, y1 = np.maximum(low - margin, 0).astype(int)
    x2, y2 = np.minimum(high + margin, pixels.shape[1::-1]).astype(int)
    return pixels[y1:y2, x1:x2], boxes - np.array([x1, y1, x1, y1])


def _sheet(tiles: Sequence[RGBImage], columns: int) -> RGBImage:
    """Put tiles of one width into rows, each as high as its highest tile."""
    rows = []
    for start in range(0, len(tiles), columns):
        row = list(tiles[start : start + columns])
        height = max(tile.shape[0] for tile in row) + _GAP_PX
        blank = np.full((height, _TILE_PX, 3), 255, np.uint8)
        row += [blank] * (columns - len(row))
        padded = [
            np.pad(
                tile,
                ((0, height - tile.shape[0]), (0, _GAP_PX), (0, 0)),
                constant_values=255,
            )
            for tile in row
        ]
        rows.append(np.concatenate(padded, axis=1))
    return np.concatenate(rows, axis=0)


def _draw_chart(reach: Reach, path: Path) -> None:
    """Draw width and height of the boxes and of the anchors, both axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    step = -(-len(reach.boxes) // _DRAWN_BOXES)
    sides = (reach.boxes[:, 2:] - reach.boxes[:, :2])[::step]
    missed = reach.best_iou[::step] < REACH_IOU
    figure = Figure(figsize=(7, 6), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for some, colour, dot, label in (
        (sides[~missed], 'tab:blue', 5, 'reached by an anchor'),
        (sides[missed], 'tab:red', 9, f'by none at IoU {REACH_IOU}'),
    ):
        if len(some):
            axes.scatter(some[:, 0], some[:, 1], s=dot, c=colour, alpha=0.5, label=label)
    anchors = reach.sides
    axes.scatter(anchors[:, 0], anchors[:, 1], s=45, c='black', marker='+', label='anchors')
    width, height = reach.size
    axes.set(xscale='log', yscale='log', xlabel='width, pixels', ylabel='height, pixels')
    axes.set_title(f'Boxes in the input of {width}x{height}, and anchors')
    for axis in (axes.xaxis, axes.yaxis):  # plain numbers: powers of ten run into each other
        low, high = axis.get_view_interval()
        ticks = [2**power for power in range(16) if low <= 2**power <= high]
        axis.set_ticks(ticks, [str(tick) for tick in ticks])
        axis.set_ticks([], minor=True)
    axes.legend(loc='upper left')
    with replacing(path) as part:
        figure.savefig(part, dpi=100)
