"""Draw boxes, class names and scores on images.

mmdet's visualizer derives the text size from the box, which gives letters of 7 pixels on an image
of 320. Here it is derived from the short side of the image, and any number of classes have
different colours.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from effdet_plugin.files import RGBImage

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

TEXT_SHARE = 1 / 22  # of the image's short side
TEXT_SIZES_PX = (11, 48)
SMALLEST_WITH_TEXT_PX = 48  # in smaller images letters would hide the objects
GOLDEN_RATIO = 0.6180339887  # multiples of it, modulo 1, spread any number of hues evenly


@dataclass(frozen=True)
class Drawable:
    """Boxes to draw: (N, 4) xyxy in pixels of the image, labels (N,), scores (N,) or None."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, instances: InstanceData, score_thr: float = 0.0) -> 'Drawable':
        """Take mmdet's instances, on any device, with a score of at least ``score_thr``."""
        boxes = np.asarray(instances.bboxes.detach().cpu(), np.float32).reshape(-1, 4)
        labels = np.asarray(instances.labels.detach().cpu(), np.int64)
        if 'scores' not in instances:
            return cls(boxes, labels)
        scores = np.asarray(instances.scores.detach().cpu(), np.float32)
        kept = scores >= score_thr
        return cls(boxes[kept], labels[kept], scores[kept])


def class_colour(label: int) -> Colour:
    """Return the RGB colour of a class; successive labels have very different hues."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + label * GOLDEN_RATIO) % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(image: RGBImage, things: Drawable, classes: Sequence[str]) -> RGBImage:
    """Draw boxes with their names and scores.

    Args:
        image: RGB pixels (H, W, 3); not changed.
        things: What to draw; the highest scores are on top.
        classes: Name of each label.

    Returns:
        A new image of the same size.
    """
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    short = min(canvas.size)
    font = ImageFont.load_default(size=float(np.clip(short * TEXT_SHARE, *TEXT_SIZES_PX)))
    order = _worst_first(things)
    boxes = [_inside(box, canvas.size) for box in things.boxes]
    colours = [class_colour(int(label)) for label in things.labels]
    for index in order:
        pen.rectangle(boxes[index], outline=colours[index], width=max(1, round(short / 160)))
    # Texts are drawn after all boxes, so that no box covers a text.
    for index in order if short >= SMALLEST_WITH_TEXT_PX else []:
        text = _caption(things, index, classes)
        _write_tag(pen, canvas.width, boxes[index], text, colours[index], font)
    return np.array(canvas, np.uint8)


def side_by_side(
    image: RGBImage,
    prediction: Drawable,
    truth: Drawable,
    classes: Sequence[str],
    min_short_px: int = 480,
) -> RGBImage:
    """Draw a prediction beside the ground truth, each under its title.

    Args:
        image: RGB pixels (H, W, 3).
        prediction: Left half.
        truth: Right half.
        classes: Name of each label.
        min_short_px: Smaller images are enlarged until their short side has this many pixels.
    """
    factor = max(1.0, min_short_px / min(image.shape[:2]))
    large = np.asarray(
        cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), np.uint8
    )
    halves = [
        _titled(draw_boxes(large, _scaled(things, factor), classes), title)
        for title, things in (('prediction', prediction), ('ground truth', truth))
    ]
    gap = np.full((halves[0].shape[0], 8, 3), 255, np.uint8)
    return np.concatenate([halves[0], gap, halves[1]], axis=1)


def stack(images: Sequence[RGBImage]) -> RGBImage:
    """Stack images (H, W, 3) vertically, narrower ones centred on white."""
    width = max(image.shape[1] for image in images)
    rows = []
    for image in images:
        left = (width - image.shape[1]) // 2
        sides = ((0, 8), (left, width - image.shape[1] - left), (0, 0))
        rows.append(np.pad(image, sides, constant_values=255))
    return np.concatenate(rows, axis=0)


def _worst_first(things: Drawable) -> list[int]:
    """Return the drawing order: by ascending score, without scores by descending area."""
    if things.scores is not None:
        return [int(index) for index in np.argsort(things.scores, kind='stable')]
    sides = things.boxes[:, 2:] - things.boxes[:, :2]
    return [int(index) for index in np.argsort(-sides.prod(axis=1), kind='stable')]


def _inside(box: NDArray[np.float32], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Clip a box to an image (width, height), in whole pixels and with x1 <= x2, y1 <= y2."""
    limits = np.array([size[0] - 1, size[1] - 1] * 2)
    x1, y1, x2, y2 = (int(v) for v in np.clip(np.rint(np.nan_to_num(box)), 0, limits))
    return x1, y1, max(x1, x2), max(y1, y2)


def _caption(things: Drawable, index: int, classes: Sequence[str]) -> str:
    """Return the class name of a box, with its score if it has one."""
    name = classes[int(things.labels[index])]
    return name if things.scores is None else f'{name} {things.scores[index]:.2f}'


def _write_tag(
    pen: ImageDraw.ImageDraw,
    image_width: int,
    box: tuple[int, int, int, int],
    text: str,
    colour: Colour,
    font: Font,
) -> None:
    """Write a text on the class colour: above the box, or inside it if there is no room."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = int(right - left) + 6, int(bottom - top) + 5
    x = max(0, min(box[0], image_width - width))
    y = box[1] - height if box[1] >= height else box[1]
    pen.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    ink = 'black' if np.dot(colour, (0.299, 0.587, 0.114)) > 140 else 'white'
    pen.text((x + 3 - left, y + 2 - top), text, fill=ink, font=font)


def _titled(image: RGBImage, title: str) -> RGBImage:
    """Put a title on white above an image."""
    font = ImageFont.load_default(size=20.0)
    canvas = Image.new('RGB', (image.shape[1], image.shape[0] + 32), 'white')
    canvas.paste(Image.fromarray(image), (0, 32))
    ImageDraw.Draw(canvas).text((image.shape[1] // 2, 16), title, 'black', font, anchor='mm')
    return np.array(canvas, np.uint8)


def _scaled(things: Drawable, factor: float) -> Drawable:
    """Scale the boxes like their image."""
    return Drawable(things.boxes * np.float32(factor), things.labels, things.scores)
