"""Mosaics: small objects at their places, the same for a seed."""

import json
from pathlib import Path

import numpy as np

from effdet_plugin.demo import draw_mosaic, make_mosaics
from effdet_plugin.demo.mosaics import PATCH_SIZE, SIDES_PX

SIZE = (2 * PATCH_SIZE[0], 3 * PATCH_SIZE[1])


def test_mosaic__objects_are_small_and_inside() -> None:
    image, objects = draw_mosaic(np.random.default_rng(1), SIZE)
    assert image.shape == (*SIZE, 3)
    assert len(objects) > 0
    for thing in objects:
        x1, y1, x2, y2 = thing.box
        assert 0 <= x1 < x2 <= SIZE[1]
        assert 0 <= y1 < y2 <= SIZE[0]
        assert SIDES_PX[0] <= max(x2 - x1, y2 - y1) <= SIDES_PX[1]
        assert 0 < thing.area <= (x2 - x1) * (y2 - y1)
    assert max(thing.box[0] for thing in objects) > PATCH_SIZE[1]  # not all in the first patch


def test_make__images_and_annotations_of_a_seed(tmp_path: Path) -> None:
    first, second = (make_mosaics(tmp_path / name, 1, size=PATCH_SIZE) for name in 'ab')
    names = ['test/mosaic_0000.jpg', 'annotations/test.json']
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    document = json.loads((first / names[1]).read_text())
    [image] = document['images']
    assert (image['width'], image['height']) == PATCH_SIZE[::-1]
