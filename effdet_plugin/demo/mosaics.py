"""Large images with many small objects of the scenes' classes, to measure tiled inference by.

A mosaic is a grid of patches. Each is a scene that was drawn larger and reduced, so that a small
object has the shape, texture and blur of a photographed one, not of a large one drawn with few
pixels.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from effdet_plugin.demo.scene_painter import Pixels, SceneObject, draw_scene
from effdet_plugin.demo.scenes import Drawn, coco_of
from effdet_plugin.files import write_atomically, write_image

MOSAIC_SIZE = (1800, 2400)  # (height, width)
PATCH_SIZE = (150, 160)
REDUCTION = 3  # a patch is drawn this many times larger
SIDES_PX = (12, 20)  # of an object's box: its longer side, in the mosaic
_DRAWN_SIZES = (40, 58)  # sizes of outlines that give such boxes before the reduction


def draw_mosaic(
    rng: np.random.Generator, size: tuple[int, int] = MOSAIC_SIZE
) -> tuple[Pixels, list[SceneObject]]:
    """Draw one mosaic; about every second patch has an object.

    Args:
        rng: Random generator.
        size: (height, width), rounded down to whole patches.

    Returns:
        The RGB image (H, W, 3) and its objects, whose longer sides are within `SIDES_PX`.
    """
    rows, columns = size[0] // PATCH_SIZE[0], size[1] // PATCH_SIZE[1]
    image = np.empty((rows * PATCH_SIZE[0], columns * PATCH_SIZE[1], 3), np.uint8)
    objects = []
    for index in range(rows * columns):
        y, x = (int(i) * side for i, side in zip(divmod(index, columns), PATCH_SIZE, strict=True))
        patch, found = _patch(rng)
        image[y : y + PATCH_SIZE[0], x : x + PATCH_SIZE[1]] = patch
        objects += [_moved(thing, x, y) for thing in found]
    return image, objects


def make_mosaics(
    out_dir: Path | str, count: int = 2, seed: int = 0, size: tuple[int, int] = MOSAIC_SIZE
) -> Path:
    """Write a dataset of mosaics for tests: ``test/*.jpg``, then ``annotations/test.json``.

    Args:
        out_dir: Created if it is missing; files of an earlier call are replaced.
        count: Number of images.
        seed: Random seed of the images.
        size: See `draw_mosaic`.

    Returns:
        ``out_dir`` as a path.
    """
    out_dir = Path(out_dir)
    info = {'description': 'effdet_plugin mosaics', 'seed': seed}
    coco = coco_of(_write_images(out_dir / 'test', count, seed, size), info)
    write_atomically(out_dir / 'annotations' / 'test.json', json.dumps(coco))
    return out_dir


def _write_images(folder: Path, count: int, seed: int, size: tuple[int, int]) -> Iterator[Drawn]:
    """Write the images; yield (file name, (height, width), objects) of each."""
    for index in tqdm(range(count), desc='drawing mosaics', unit='img'):
        image, objects = draw_mosaic(np.random.default_rng((seed, index)), size)
        write_image(folder / f'mosaic_{index:04d}.jpg', image)
        yield f'mosaic_{index:04d}.jpg', (image.shape[0], image.shape[1]), objects


def _patch(rng: np.random.Generator) -> tuple[Pixels, list[SceneObject]]:
    """Draw scenes until one has objects of the right size only, or none; reduce it."""
    shape = (PATCH_SIZE[0] * REDUCTION, PATCH_SIZE[1] * REDUCTION)
    while True:
        large, found = draw_scene(rng, shape, _DRAWN_SIZES, max_objects=1, min_objects=0)
        objects = [_reduced(thing) for thing in found]
        if all(SIDES_PX[0] <= _longer_side(thing) <= SIDES_PX[1] for thing in objects):
            small = cv2.resize(large, PATCH_SIZE[::-1], interpolation=cv2.INTER_AREA)
            return np.asarray(small, np.uint8), objects


def _reduced(thing: SceneObject) -> SceneObject:
    """Return an object after the reduction; its box holds every pixel it has a share of."""
    x1, y1, x2, y2 = thing.box
    box = (x1 // REDUCTION, y1 // REDUCTION, -(-x2 // REDUCTION), -(-y2 // REDUCTION))
    return SceneObject(thing.label, box, max(1, round(thing.area / REDUCTION**2)))


def _moved(thing: SceneObject, x: int, y: int) -> SceneObject:
    x1, y1, x2, y2 = thing.box
    return SceneObject(thing.label, (x1 + x, y1 + y, x2 + x, y2 + y), thing.area)


def _longer_side(thing: SceneObject) -> int:
    x1, y1, x2, y2 = thing.box
    return max(x2 - x1, y2 - y1)
