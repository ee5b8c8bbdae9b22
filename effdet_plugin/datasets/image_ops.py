"""Operations of AutoAugment on an image or a part of one, by level.

Source: google/automl efficientdet/aug/autoaugment.py, at commit 6a54c87, whose ranges these are;
the computation is mmcv's. It rounds where the reference truncates (one grey level), and at an
image's edge `sharpness` mirrors where the reference changes nothing.

An image is uint8 RGB ``(H, W, 3)``, a level a number from 0 to 10; more is further.
"""

from collections.abc import Callable

import cv2
import mmcv
import numpy as np

MAX_LEVEL = 10.0
GREY = 128  # of what is cut out or uncovered
Operation = Callable[[np.ndarray, float], np.ndarray]


def _factor(level: float) -> float:
    """Return the weight of the image against its degenerate form; 1 leaves the image."""
    return level / MAX_LEVEL * 1.8 + 0.1


def _whole(level: float, largest: float) -> int:
    return int(level / MAX_LEVEL * largest)


def auto_contrast(image: np.ndarray, level: float) -> np.ndarray:
    """Stretch each channel to 0..255, at any level."""
    return mmcv.auto_contrast(image)


def equalize(image: np.ndarray, level: float) -> np.ndarray:
    """Equalize each channel's histogram, at any level."""
    return mmcv.imequalize(image)


def posterize(image: np.ndarray, level: float) -> np.ndarray:
    """Keep the highest bits: 4 at level 10, and one at least (TensorFlow shifts by 7 at most)."""
    return mmcv.posterize(image, max(_whole(level, 4), 1))


def solarize(image: np.ndarray, level: float) -> np.ndarray:
    """Invert what is not below a threshold: 0 at level 0, 256 at level 10, the image itself."""
    return np.where(image < _whole(level, 256), image, 255 - image)


def solarize_add(image: np.ndarray, level: float) -> np.ndarray:
    """Brighten what is below 128: by 110 at level 10."""
    brighter = np.minimum(image.astype(np.int32) + _whole(level, 110), 255).astype(np.uint8)
    return np.where(image < 128, brighter, image)


def color(image: np.ndarray, level: float) -> np.ndarray:
    """Saturate: 0.1 at level 0, 1.9 at level 10."""
    return _as_bgr(lambda bgr: mmcv.adjust_color(bgr, _factor(level), backend='cv2'), image)


def contrast(image: np.ndarray, level: float) -> np.ndarray:
    """Stretch from the mean grey: by 0.1 at level 0, by 1.9 at level 10."""
    return _as_bgr(lambda bgr: mmcv.adjust_contrast(bgr, _factor(level), backend='cv2'), image)


def brightness(image: np.ndarray, level: float) -> np.ndarray:
    """Multiply: by 0.1 at level 0, by 1.9 at level 10."""
    return mmcv.adjust_brightness(image, _factor(level), backend='cv2')


def sharpness(image: np.ndarray, level: float) -> np.ndarray:
    """Blend with a blurred image: 0.1 of the image at level 0, 1.9 at level 10."""
    return mmcv.adjust_sharpness(image, _factor(level))


def _as_bgr(change: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> np.ndarray:
    """Apply what weights channels in OpenCV's order."""
    changed = change(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return cv2.cvtColor(changed, cv2.COLOR_BGR2RGB)


def cutout(image: np.ndarray, level: float, largest: float = 100.0) -> np.ndarray:
    """Grey out a square of twice ``level / 10 * largest`` pixels, around any point."""
    height, width = image.shape[:2]
    centre = int(np.random.randint(height)), int(np.random.randint(width))
    return erase(image, centre, (_whole(level, largest),) * 2)


def erase(image: np.ndarray, centre: tuple[int, int], reach: tuple[int, int]) -> np.ndarray:
    """Grey out what is within ``reach`` pixels (vertical, horizontal) of a (row, column)."""
    image = image.copy()
    rows, columns = (
        slice(max(at - way, 0), at + way) for at, way in zip(centre, reach, strict=True)
    )
    image[rows, columns] = GREY
    return image


def flip(image: np.ndarray, level: float) -> np.ndarray:
    """Mirror from left to right, at any level."""
    return image[:, ::-1]


def rotate(image: np.ndarray, level: float) -> np.ndarray:
    """Rotate about the centre: by 30 degrees at level 10, to either side by the level's sign."""
    degrees = level / MAX_LEVEL * 30
    return mmcv.imrotate(image, degrees, border_value=(GREY,) * 3, interpolation='nearest')


def shear(image: np.ndarray, level: float, direction: str) -> np.ndarray:
    """Shift rows (``'horizontal'``) or columns by 0.3 of their number at level 10."""
    slope = level / MAX_LEVEL * 0.3
    return mmcv.imshear(image, slope, direction, (GREY,) * 3, 'nearest')


def translate(image: np.ndarray, level: float, direction: str, largest: float) -> np.ndarray:
    """Shift by whole pixels: ``largest`` of them at level 10."""
    pixels = _whole(level, largest)
    return mmcv.imtranslate(image, pixels, direction, (GREY,) * 3, 'nearest')
