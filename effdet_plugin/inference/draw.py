"""Draw boxes, class names and scores on images.

mmdet's visualizer derives the text size from the box, which gives letters of 7 pixels on an image
of 320. Here it is derived from the size of the image, any number of classes have different
colours, and labels do not cover each other (`labels.py`).
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import cv2
import numpy as np
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from effdet_plugin.files import RGBImage
from effdet_plugin.inference.labels import Rectangle, place_labels

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

TEXT_SHARE = 1 / 36  # of the mean of the image's sides
TEXT_SIZES_PX = (11, 96)
CROWDED = 30  # from so many boxes on the text is smaller, so that more labels find room
CROWDED_SHARE = 0.75
LINE_SHARE = 1 / 320  # of the mean of the image's sides
SMALL_BOX_LINE_SHARE = 1 / 8  # of the short side of a box: a line never fills it
SMALLEST_WITH_TEXT_PX = 48  # in smaller images letters would hide the objects
INK_CHANGES_AT = 120  # of 255, the brightness of a colour
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
    """Return the RGB colour of a class, always the same; successive labels differ most."""
    hue = (0.02 + label * GOLDEN_RATIO) % 1
    # Every third hue is pale or dark: of 80 classes some have nearly the same hue.
    saturation, value = ((0.85, 0.95), (0.85, 0.95), (0.5, 1.0), (0.9, 0.7))[label // 8 % 4]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(image: RGBImage, things: Drawable, classes: Sequence[str]) -> RGBImage:
    """Draw boxes with their names and scores.

    Text and lines scale with the image. A label that has no room beside its box is left out, those
    of the lowest scores first; its box is drawn.

    Args:
        image: RGB pixels (H, W, 3); not changed.
        things: What to draw; the highest scores are on top.
        classes: Name of each label.

    Returns:
        A new image of the same size.
    """
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    order = _worst_first(things)
    boxes = [_inside(box, canvas.size) for box in things.boxes]
    colours = [class_colour(int(label)) for label in things.labels]
    for index in order:
        _draw_box(pen, boxes[index], colours[index], max(1, round(_mean_side(image) * LINE_SHARE)))
    if min(canvas.size) < SMALLEST_WITH_TEXT_PX:
        return np.array(canvas, np.uint8)
    # Texts are drawn after all boxes, so that no box covers a text.
    tags = place_tags(image, things, classes)
    for index, tag in tags.items():
        _write_tag(pen, tag, colours[index], text_font(image, len(boxes)))
    return np.array(canvas, np.uint8)


@dataclass(frozen=True)
class Tag:
    """A label: its text and the rectangle that it fills."""

    text: str
    place: Rectangle


def place_tags(image: RGBImage, things: Drawable, classes: Sequence[str]) -> dict[int, Tag]:
    """Return the label of each box that has one: best score first, none over another.

    Args:
        image: RGB pixels (H, W, 3).
        things: The boxes.
        classes: Name of each label.
    """
    height, width = image.shape[:2]
    font = text_font(image, len(things.boxes))
    order = _worst_first(things)[::-1]
    texts = [_caption(things, index, classes) for index in order]
    boxes = [_inside(things.boxes[index], (width, height)) for index in order]
    rectangles: list[Rectangle] = [(x1, y1, x2 + 1, y2 + 1) for x1, y1, x2, y2 in boxes]
    places = place_labels(rectangles, [_tag_size(text, font) for text in texts], (width, height))
    triples = zip(order, texts, places, strict=True)
    return {index: Tag(text, place) for index, text, place in triples if place is not None}


def text_font(image: RGBImage, num_boxes: int) -> Font:
    """Return the font for an image (H, W, 3) with a number of boxes."""
    share = TEXT_SHARE * (CROWDED_SHARE if num_boxes >= CROWDED else 1)
    return _font(float(np.clip(_mean_side(image) * share, *TEXT_SIZES_PX)))


@lru_cache(maxsize=8)
def _font(size: float) -> Font:
    return ImageFont.load_default(size=size)


def _mean_side(image: RGBImage) -> float:
    """Return the geometric mean of an image's sides: that of a square of its area."""
    return float(np.sqrt(image.shape[0] * image.shape[1]))


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


def _draw_box(pen: ImageDraw.ImageDraw, box: Rectangle, colour: Colour, width: int) -> None:
    """Draw a box with a thin dark edge inside, which shows it on any background."""
    side = min(box[2] - box[0], box[3] - box[1])
    width = max(1, min(width, round(side * SMALL_BOX_LINE_SHARE)))
    if width > 1:
        edge = max(1, width // 4)
        inner = (box[0] + width, box[1] + width, box[2] - width, box[3] - width)
        pen.rectangle(inner, outline=_darker(colour), width=edge)
    pen.rectangle(box, outline=colour, width=width)


def _darker(colour: Colour) -> Colour:
    red, green, blue = (part // 4 for part in colour)
    return red, green, blue


def _margin(font: Font) -> int:
    """Return the space around a text, in pixels."""
    return max(2, round(getattr(font, 'size', 10) / 6))


def _tag_size(text: str, font: Font) -> tuple[int, int]:
    """Return width and height of a label; the height is that of all letters of its font."""
    left, _, right, _ = font.getbbox(text)
    _, top, _, bottom = font.getbbox('Agj|')
    return ceil(right - left) + 2 * _margin(font), ceil(bottom - top) + _margin(font)


def _write_tag(pen: ImageDraw.ImageDraw, tag: Tag, colour: Colour, font: Font) -> None:
    """Write a text on its class's colour, in black or white, whichever is read better."""
    x1, y1, x2, y2 = tag.place
    pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=colour)
    ink = 'black' if np.dot(colour, (0.299, 0.587, 0.114)) > INK_CHANGES_AT else 'white'
    left, top = font.getbbox(tag.text)[0], font.getbbox('Agj|')[1]
    pen.text((x1 + _margin(font) - left, y1 + _margin(font) / 2 - top), tag.text, ink, font)


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
