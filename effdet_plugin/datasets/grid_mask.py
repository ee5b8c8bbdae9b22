"""GridMask (Chen et al. 2020, arXiv 2001.04086), as google/automl has it."""

from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from effdet_plugin.errors import ConfigError

# The reference's 0.5 is the bound of a normally distributed number: it masks 69% of the images.
REFERENCE_PROB = 0.69


@TRANSFORMS.register_module()
class GridMask(BaseTransform):
    """Black squares in a regular, slightly turned grid over an image; boxes stay.

    Source: google/automl efficientdet/aug/gridmask.py, at commit 6a54c87. The period of the grid
    is uniform between 0.5 heights and 0.3 widths of the image, its origin differs for rows and
    columns, and its angle is normally distributed around ``-rotate`` degrees, with a standard
    deviation of ``rotate``. Images may have any size.

    Args:
        prob: Share of the images that are masked.
        ratio: Share of the period that is kept, in rows and in columns: a square of
            ``1 - ratio`` periods is black. 1 draws it for each image.
        rotate: Degrees.
        gridmask_size_ratio: By which share of the longer side of the image the grid is larger than
            that, so that none of its corners is turned into view.

    Raises:
        ConfigError: A ``prob`` outside 0 to 1, a ``ratio`` outside 0 to 1, a grid smaller than the
            image.
    """

    def __init__(
        self,
        prob: float = REFERENCE_PROB,
        ratio: float = 0.6,
        rotate: float = 10.0,
        gridmask_size_ratio: float = 0.5,
    ) -> None:
        for name, value in {'prob': prob, 'ratio': ratio}.items():
            if isinstance(value, bool) or not 0 <= value <= 1:
                raise ConfigError(f'GridMask: {name}={value!r}; give a share from 0 to 1')
        if gridmask_size_ratio < 0:
            raise ConfigError(
                f'GridMask: gridmask_size_ratio={gridmask_size_ratio}; give 0 or more'
            )
        self.prob, self.ratio, self.rotate = prob, ratio, rotate
        self.gridmask_size_ratio = gridmask_size_ratio

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Mask ``results['img']``, by numpy's global generator."""
        if np.random.random() < self.prob:
            image = results['img']
            kept = self.kept(image.shape[0], image.shape[1])
            results['img'] = np.where(kept[..., None] if image.ndim == 3 else kept, image, 0)
            results['img'] = results['img'].astype(image.dtype, copy=False)
        return results

    def kept(self, height: int, width: int) -> np.ndarray:
        """Draw a mask ``(height, width)``, True where pixels are kept."""
        side = int((self.gridmask_size_ratio + 1) * max(height, width))
        bounds = sorted((height * 0.5, width * 0.3))
        period = max(int(np.random.randint(int(bounds[0]), int(bounds[1]) + 1)), 2)
        length = min(max(int(period * self.ratio + 0.5), 1), period - 1)
        if self.ratio == 1:
            length = int(np.random.randint(1, period + 1))
        rows, columns = (_stripes(side, period, length) for _ in range(2))
        grid = (rows[:, None] | columns).astype(np.uint8) * 255
        angle = self.rotate * np.random.normal(-1, 1)
        centre = ((side - 1) / 2, (side - 1) / 2)
        turned = cv2.warpAffine(grid, cv2.getRotationMatrix2D(centre, angle, 1.0), (side, side))
        top, left = (side - height) // 2, (side - width) // 2
        # The reference cuts what was interpolated to whole numbers: only 1 is kept.
        return turned[top : top + height, left : left + width] == 255


def _stripes(side: int, period: int, length: int) -> np.ndarray:
    """Return which of ``side`` rows are kept: ``length`` of each period, from a random row on."""
    kept = np.zeros(side, bool)
    start = int(np.random.randint(0, period + 1))
    for number in range(side // period):
        first = start + number * period
        kept[first : first + length] = True
    return kept
