"""Draws synthetic scenes: shapes with textures and shadows on cloudy backgrounds.

The classes differ by outline only: colour, texture, size and angle are random for every object, so
a detector cannot solve the task by colour. Objects occlude each other and are cut by the border of
the image; discs, squares, bars and hexagons, which belong to no class, are distractors.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Canvas = NDArray[np.float32]
Points = NDArray[np.float64]
Window = tuple[slice, slice]

OBJECT_SIZES_PX = (36, 120)
MAX_OBJECTS = 7
CLUTTER_SIZES_PX = (6, 50)
SIDES_PX = (224, 320)
MIN_VISIBLE = 0.7  # share of an object's area that is inside the image and not occluded
MIN_CONTRAST = 80.0  # distance in RGB between an object and what is behind it
MARGIN_PX = 12  # padding around a shape for its shadow
MAX_STRETCH = 0.15  # logarithm of the largest factor by which a side is stretched
OVERSAMPLING = 4  # masks are drawn larger, then reduced: antialiased alike by any OpenCV version


def _ngon(corners: int, radius: float = 1.0, phase: float = -0.25) -> Points:
    """Return the corners of a regular polygon, (corners, 2) as x, y; ``phase`` in full turns."""
    turns = 2 * np.pi * (np.arange(corners) / corners + phase)
    return radius * np.stack([np.cos(turns), np.sin(turns)], axis=1)


def _plus(arm: float = 0.34) -> Points:
    """Return a plus sign whose arms are ``2 * arm`` wide and reach to 1."""
    quarter = np.array([[arm, -1.0], [arm, -arm], [1.0, -arm]])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


def _star(inner: float = 0.42) -> Points:
    """Return a star of five points between the radii ``inner`` and 1."""
    corners = _ngon(10)
    corners[1::2] *= inner
    return corners


# Outlines in units of half the object's size; a second outline cuts a hole.
OUTLINES: dict[str, list[Points]] = {
    'ring': [_ngon(96), _ngon(96, 0.55)],
    'triangle': [_ngon(3)],
    'cross': [_plus()],
    'star': [_star()],
}
CLASSES = tuple(OUTLINES)
CLUTTER: list[list[Points]] = [
    [_ngon(96)],
    [_ngon(4, phase=0.125)],
    [_ngon(4, phase=0.125) * [1.0, 0.12]],
    [_ngon(6)],
]


@dataclass(frozen=True)
class SceneObject:
    """One visible object: class index, box (x1, y1, x2, y2) in pixels and visible area."""

    label: int
    box: tuple[int, int, int, int]
    area: int


@dataclass(frozen=True)
class Layer:
    """An object while the image is drawn: class, visible pixels (H, W), area without occlusion."""

    label: int
    seen: NDArray[np.bool_]
    area: int


@dataclass(frozen=True)
class Stamp:
    """A shape's coverage 0..1, (S, S), and the position (y, x) of its first pixel in the image."""

    alpha: Canvas
    origin: tuple[int, int]

    def inside(self, shape: tuple[int, int]) -> tuple[Window, Canvas]:
        """Return the window of an image (H, W) that it covers, and its coverage there."""
        starts = [max(0, at) for at in self.origin]
        stops = [min(end, at + len(self.alpha)) for at, end in zip(self.origin, shape, strict=True)]
        window = (slice(starts[0], stops[0]), slice(starts[1], stops[1]))
        own = tuple(
            slice(w.start - at, w.stop - at) for w, at in zip(window, self.origin, strict=True)
        )
        return window, self.alpha[own]


def draw_scene(
    rng: np.random.Generator,
    shape: tuple[int, int] | None = None,
    object_sizes: tuple[int, int] = OBJECT_SIZES_PX,
    max_objects: int = MAX_OBJECTS,
    min_objects: int = 1,
) -> tuple[Pixels, list[SceneObject]]:
    """Draw one image.

    Args:
        rng: Random generator.
        shape: (H, W) in pixels; None draws both sides from `SIDES_PX`.
        object_sizes: Least and largest size of an object in pixels.
        max_objects: Largest number of objects.
        min_objects: Least number that is drawn; one that would be hidden is left out.

    Returns:
        The RGB image (H, W, 3) and its objects; boxes enclose exactly the visible pixels.
    """
    height, width = shape or (int(v) for v in rng.integers(*SIDES_PX, size=2, endpoint=True))
    canvas = _background(rng, height, width)
    for _ in range(rng.integers(5, 15)):
        outline = CLUTTER[rng.integers(len(CLUTTER))]
        _paint(rng, canvas, _stamp(rng, outline, (height, width), CLUTTER_SIZES_PX), opacity=0.8)
    layers: list[Layer] = []
    for _ in range(rng.integers(min_objects, max_objects + 1)):
        layers = _add_object(rng, canvas, layers, object_sizes)
    return _photograph(rng, canvas), [_describe(layer) for layer in layers]


def _add_object(
    rng: np.random.Generator,
    canvas: Canvas,
    layers: list[Layer],
    sizes: tuple[int, int] = OBJECT_SIZES_PX,
) -> list[Layer]:
    """Paint one object over the others, unless it or one below it would be mostly occluded."""
    label = int(rng.integers(len(CLASSES)))
    shape = canvas.shape[0], canvas.shape[1]
    stamp = _stamp(rng, OUTLINES[CLASSES[label]], shape, sizes)
    window, alpha = stamp.inside(shape)
    seen = np.zeros(shape, np.bool_)
    seen[window] = alpha > 0.5
    below = [Layer(one.label, one.seen & ~seen, one.area) for one in layers]
    candidates = [*below, Layer(label, seen, int((stamp.alpha > 0.5).sum()))]
    if any(one.seen.sum() < MIN_VISIBLE * one.area for one in candidates):
        return layers
    _shade(rng, canvas, stamp)
    _paint(rng, canvas, stamp)
    return candidates


def _describe(layer: Layer) -> SceneObject:
    """Return the label, the box and the area of an object's visible pixels."""
    rows = np.flatnonzero(layer.seen.any(axis=1))
    columns = np.flatnonzero(layer.seen.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return SceneObject(layer.label, box, int(layer.seen.sum()))


def _stamp(
    rng: np.random.Generator, outline: list[Points], shape: tuple[int, int], sizes: tuple[int, int]
) -> Stamp:
    """Draw an outline at a random size and angle, its centre anywhere in an image (H, W)."""
    size = np.exp(rng.uniform(*np.log(sizes)))
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    stretch = np.exp(rng.uniform(-MAX_STRETCH, MAX_STRETCH, 2))
    side = int(np.ceil(size * np.exp(MAX_STRETCH))) + 2 * MARGIN_PX
    scaled = [((part * stretch) @ turn * size + side) / 2 * OVERSAMPLING for part in outline]
    large = np.zeros((side * OVERSAMPLING, side * OVERSAMPLING), np.uint8)
    cv2.fillPoly(large, [np.rint(part).astype(np.int32) for part in scaled], (255,))
    small = cv2.resize(large, (side, side), interpolation=cv2.INTER_AREA)
    centre = rng.integers(0, shape)
    origin = int(centre[0]) - side // 2, int(centre[1]) - side // 2
    return Stamp(np.asarray(small, np.float32) / np.float32(255), origin)


def _shade(rng: np.random.Generator, canvas: Canvas, stamp: Stamp) -> None:
    """Darken the canvas (H, W, 3) by the shadow of a shape."""
    soft = np.asarray(cv2.GaussianBlur(stamp.alpha, (0, 0), MARGIN_PX / 4), np.float32)
    offset = rng.integers(-MARGIN_PX // 2, MARGIN_PX // 2, 2)
    moved = Stamp(soft, (stamp.origin[0] + int(offset[0]), stamp.origin[1] + int(offset[1])))
    window, alpha = moved.inside(canvas.shape[:2])
    canvas[window] *= 1 - 0.45 * alpha[..., None]


def _paint(rng: np.random.Generator, canvas: Canvas, stamp: Stamp, opacity: float = 1.0) -> None:
    """Blend a textured surface with a shape's outline into the canvas (H, W, 3)."""
    window, alpha = stamp.inside(canvas.shape[:2])
    covered = alpha[..., None]
    behind = (canvas[window] * covered).sum((0, 1)) / max(float(alpha.sum()), 1.0)
    surface = _texture(rng, len(stamp.alpha), behind)[: alpha.shape[0], : alpha.shape[1]]
    canvas[window] += opacity * covered * (surface - canvas[window])


def _texture(rng: np.random.Generator, side: int, behind: Canvas) -> Canvas:
    """Return a surface (side, side, 3) of two related colours in one of five patterns."""
    first = rng.uniform(0, 255, 3)
    while np.linalg.norm(first - behind) < MIN_CONTRAST:
        first = rng.uniform(0, 255, 3)
    second = np.clip(first + rng.uniform(-70, 70, 3), 0, 255)
    across, along = _rotated_grid(rng, side, side)
    period = rng.uniform(6, 20)
    waves = (across % period < period / 2).astype(np.float32)
    dots = np.hypot(across % period - period / 2, along % period - period / 2) < period / 4
    patterns: list[Canvas] = [
        np.zeros_like(across),
        np.clip(across / side + 0.5, 0, 1),
        waves,
        np.abs(waves - (along % period < period / 2)),
        dots.astype(np.float32),
    ]
    mix = cv2.GaussianBlur(patterns[rng.integers(len(patterns))], (0, 0), 0.6)[..., None]
    return np.asarray(first + mix * (second - first), np.float32)


def _rotated_grid(rng: np.random.Generator, height: int, width: int) -> tuple[Canvas, Canvas]:
    """Return the pixel coordinates (H, W) along two axes rotated by a random angle."""
    x, y = np.meshgrid(
        np.arange(width, dtype=np.float32) - width / 2,
        np.arange(height, dtype=np.float32) - height / 2,
    )
    angle = rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def _background(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Return a colour gradient with cloudy patches of several sizes, (H, W, 3), 0..255."""
    across, _ = _rotated_grid(rng, height, width)
    mix = np.clip(across / max(height, width) + 0.5, 0, 1)[..., None]
    ends = rng.uniform(40, 225, (2, 1)) + rng.uniform(-45, 45, (2, 3))  # muted: shapes stand out
    canvas = np.asarray(ends[0] + mix * (ends[1] - ends[0]), np.float32)
    for cells, strength in ((3, 28.0), (9, 14.0), (40, 7.0)):
        coarse = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        coarse = (coarse + coarse.mean(axis=2, keepdims=True)) / 2
        canvas += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return canvas


def _photograph(rng: np.random.Generator, canvas: Canvas) -> Pixels:
    """Return the canvas with a little blur and noise, in 8 bits."""
    blurred = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.3, 0.9))
    noise = rng.normal(0, rng.uniform(2, 7), canvas.shape)
    return np.clip(np.rint(blurred + noise), 0, 255).astype(np.uint8)
