"""Anchors of all levels as plain arrays, also for image sizes that the strides do not divide.

Source: google/automl efficientdet/tf2/anchors.py (the reference).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

AspectRatio = float | tuple[float, float]


def level_sizes(
    image_size: tuple[int, int], min_level: int, max_level: int
) -> list[tuple[int, int]]:
    """Sizes (height, width) of the feature maps from ``min_level`` to ``max_level``, finest first.

    The size of level l is the image size (height, width) in pixels, halved and rounded up l times.
    """
    height, width = image_size
    sizes = []
    for level in range(1, max_level + 1):
        height, width = (height + 1) // 2, (width + 1) // 2
        if level >= min_level:
            sizes.append((height, width))
    return sizes


def anchor_sides(
    octave_base_scale: float, scales_per_octave: int, aspect_ratios: Sequence[AspectRatio]
) -> np.ndarray:
    """Width and height of a level's anchors in units of its stride.

    Args:
        octave_base_scale: side of the smallest square anchor, in strides.
        scales_per_octave: number of scales ``2 ** (i / scales_per_octave)``.
        aspect_ratios: width / height, of which the square root is applied to both sides; or pairs
            (width factor, height factor) used as they are, e.g. (1.4, 0.7) of older versions of
            the reference.

    Returns:
        ``(A, 2)`` float64 (width, height) with ``A = scales_per_octave * len(aspect_ratios)``; the
        aspect ratio changes fastest.
    """
    sides = []
    for octave in range(scales_per_octave):
        side = octave_base_scale * 2 ** (octave / scales_per_octave)
        for ratio in aspect_ratios:
            # A ratio keeps the area of the anchor, a pair need not.
            w, h = ratio if isinstance(ratio, Sequence) else (ratio**0.5, ratio**-0.5)
            sides.append((side * w, side * h))
    return np.array(sides, dtype=np.float64)


def level_anchors(
    feature_size: tuple[int, int], stride: tuple[float, float], sides: np.ndarray
) -> np.ndarray:
    """Anchors of one level, ``(height * width * A, 4)`` xyxy float64, by row, column, anchor.

    Args:
        feature_size: (height, width) of the map.
        stride: pixels of the network input per map position, (vertical, horizontal); may be
            fractions.
        sides: ``(A, 2)`` (width, height) in strides, see :func:`anchor_sides`.
    """
    rows, cols = feature_size
    half = sides / 2 * np.array([stride[1], stride[0]])  # (A, 2)
    x = (np.arange(cols) + 0.5) * stride[1]
    y = (np.arange(rows) + 0.5) * stride[0]
    centres = np.stack(np.meshgrid(x, y), axis=-1)[:, :, None]  # (rows, cols, 1, 2): x, y
    return np.concatenate([centres - half, centres + half], axis=-1).reshape(-1, 4)


def strides_of(
    image_size: tuple[int, int], feature_sizes: Sequence[tuple[int, int]]
) -> list[tuple[float, float]]:
    """Stride (vertical, horizontal) of each level: image size / feature size, maybe a fraction."""
    return [(image_size[0] / h, image_size[1] / w) for h, w in feature_sizes]


def anchor_boxes(
    image_size: tuple[int, int],
    min_level: int = 3,
    max_level: int = 7,
    octave_base_scale: float | Sequence[float] = 4.0,
    scales_per_octave: int = 3,
    aspect_ratios: Sequence[AspectRatio] = (1.0, 2.0, 0.5),
) -> Tensor:
    """All anchors of an image size, ordered by level, row, column, scale and aspect ratio.

    They are not clipped to the image.

    Args:
        image_size: (height, width) of the network input in pixels.
        min_level: finest level, 3 for P3.
        max_level: coarsest level, 7 (8 in D7x).
        octave_base_scale: see :func:`anchor_sides`; one number, or one per level.
        scales_per_octave: see :func:`anchor_sides`.
        aspect_ratios: see :func:`anchor_sides`.

    Returns:
        ``(N, 4)`` xyxy float32; 49,104 anchors at 512x512.
    """
    sizes = level_sizes(image_size, min_level, max_level)
    scales = (
        octave_base_scale
        if isinstance(octave_base_scale, Sequence)
        else [octave_base_scale] * len(sizes)
    )
    tables = [
        level_anchors(size, stride, anchor_sides(scale, scales_per_octave, aspect_ratios))
        for size, stride, scale in zip(sizes, strides_of(image_size, sizes), scales, strict=True)
    ]
    # Computed in float64 and rounded once, as in the reference.
    return torch.from_numpy(np.concatenate(tables).astype(np.float32))
