"""The images with the most mistakes, prediction beside ground truth, as JPEGs for a page."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import RGBImage
from effdet_plugin.images import read_image
from effdet_plugin.inference.draw import Drawable, side_by_side
from effdet_plugin.report.collect import Facts, ImageFacts
from effdet_plugin.report.matching import Boxes

WORST = 12
_LARGEST_PX = 640  # longer side of each half: of a smaller image that of the drawing
_SMALLEST_PX = 320
_QUALITY = 82


class Example(NamedTuple):
    """One drawn image.

    Args:
        jpeg: Prediction and ground truth side by side, as a file; empty if it cannot be read.
        text: Its name and mistakes.
    """

    jpeg: bytes
    text: str


def draw_worst(facts: Facts, folder: Path) -> Iterator[Example]:
    """Draw the images with the most mistakes, the worst first.

    Args:
        facts: Of the evaluation.
        folder: What the names of the images are relative to.
    """
    for image in facts.worst(WORST):
        try:
            pixels = read_image(folder / image.file)
        except DatasetError:  # removed since, or on another machine
            yield Example(b'', f'{_caption(image)}; cannot be read')
            continue
        drawing = draw_pair(pixels, image.found, image.truth, facts.names)
        yield Example(to_jpeg(drawing), _caption(image))


def draw_pair(pixels: RGBImage, found: Boxes, truth: Boxes, names: tuple[str, ...]) -> RGBImage:
    """Draw detections beside the truth, each half at most 640 pixels long.

    Args:
        pixels: The image (H, W, 3).
        found: Detections.
        truth: Objects.
        names: Of the classes.
    """
    factor = min(1.0, _LARGEST_PX / max(pixels.shape[:2]))
    size = tuple(max(1, round(side * factor)) for side in pixels.shape[1::-1])
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    prediction, ground = (
        Drawable((one.boxes * factor).astype(np.float32), one.labels) for one in (found, truth)
    )
    prediction = replace(prediction, scores=found.scores.astype(np.float32))
    shortest = min(_SMALLEST_PX, max(size))
    return side_by_side(small, prediction, ground, names, min_short_px=shortest)


def to_jpeg(image: RGBImage) -> bytes:
    """Return an image (H, W, 3) as the bytes of a JPEG."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])


def _caption(image: ImageFacts) -> str:
    counts = {'missed': image.missed, 'false': image.false, 'of a wrong class': image.confused}
    return f'{image.file}: ' + ', '.join(f'{n} {what}' for what, n in counts.items() if n)
