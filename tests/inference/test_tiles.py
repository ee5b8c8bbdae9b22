"""``--tiles`` through the detector and the evaluation."""

from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config

from effdet_plugin.config import load
from effdet_plugin.errors import ConfigError
from effdet_plugin.inference import TTA, Detector, Tiles, apply_tiles, apply_views
from support import REPOSITORY

LITE0 = REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py'


def lite0(size: int = 128) -> Config:
    return load(LITE0, image_size=size)


@pytest.mark.parametrize(
    ('text', 'grid', 'tile_size'),
    [
        ('3x2', (2, 3), None),
        ('640', None, (640, 640)),
        (640, None, (640, 640)),
        ('640x480', None, (480, 640)),
        ('64X48px', None, (48, 64)),
        ('320 px', None, (320, 320)),
    ],
)
def test_parse(text: str | int, grid: Any, tile_size: Any) -> None:
    """WIDTHxHEIGHT on a command line, (height, width) in Python."""
    tiles = Tiles.parse(text, 0.1, whole=False)
    assert (tiles.grid, tiles.tile_size, tiles.overlap, tiles.whole) == (
        grid,
        tile_size,
        0.1,
        False,
    )
    assert Tiles.parse(tiles) is tiles


def test_parse__an_overlap_after_a_colon() -> None:
    assert Tiles.parse('640:0.3') == Tiles(tile_size=(640, 640), overlap=0.3)
    assert Tiles.parse('3x2:.25') == Tiles(grid=(2, 3), overlap=0.25)
    assert Tiles.parse('320px:0') == Tiles(tile_size=(320, 320), overlap=0.0)
    with pytest.raises(ConfigError, match=r"'640:0\.3'.*0\.1"):
        Tiles.parse('640:0.3', 0.1)


@pytest.mark.parametrize('text', ['640:', '640:x', '640:0.95', '2x2:1', '640:0.2:0.2'])
def test_parse__an_overlap_that_cannot_be(text: str) -> None:
    with pytest.raises(ConfigError, match=r'overlap|tiles'):
        Tiles.parse(text)


@pytest.mark.parametrize('text', ['3', '2x', 'x2', '2x2x2', '-2x2', '0x2', '20x20px', 'many', ''])
def test_parse__refused_in_a_line(text: str) -> None:
    with pytest.raises(ConfigError, match='tiles') as error:
        Tiles.parse(text)
    assert '\n' not in str(error.value)


def test_apply__steps_that_read_stay_outside() -> None:
    cfg = lite0()
    model = apply_tiles(cfg, Tiles(grid=(2, 3)), batch_size=4)
    steps = cfg.test_dataloader.dataset.pipeline
    assert [step['type'] for step in steps] == ['LoadImageFromFile', 'ToRGB', 'TileViews']
    assert steps[-1]['transforms'][0]['type'] == 'LetterBox'
    assert steps[-1]['transforms'][0]['image_size'] == (128, 128)
    assert model['batch_size'] == 4


def test_apply__needs_a_step_with_a_size() -> None:
    pipeline = [dict(type='PackDetInputs')]
    cfg = Config(dict(test_dataloader=dict(dataset=dict(type='X', pipeline=pipeline))))
    with pytest.raises(ConfigError, match=r'LetterBox.*Resize'):
        apply_tiles(cfg, Tiles(grid=(2, 2)))
    assert apply_views(cfg, None, None) is None


def random_image(height: int = 90, width: int = 120) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_detector__one_tile_finds_what_the_detector_finds() -> None:
    cfg = lite0()
    [single] = Detector(cfg, 'none')(random_image())
    [merged] = Detector(cfg, 'none', tiles=Tiles(grid=(1, 1)))(random_image())
    assert len(merged.pred_instances) > 0
    assert torch.isin(merged.pred_instances.scores, single.pred_instances.scores).all()
    assert merged.ori_shape == single.ori_shape == (90, 120)


def spread_scores(detector: Detector) -> Detector:
    """Random weights give scores that differ by rounding only, so which are kept is chance."""
    head: Any = detector.model.bbox_head
    with torch.no_grad():
        head.cls_tower.predict.pointwise.weight.mul_(100)
    return detector


def test_detector__boxes_of_a_tile_are_in_its_place() -> None:
    """Tiles without overlap and the whole: what a tile has alone, moved."""
    pixels = random_image(160, 320)
    cfg = lite0()
    tiles = Tiles(grid=(1, 2), overlap=0.0, whole=False)
    [merged] = spread_scores(Detector(cfg, 'none', tiles=tiles, batch_size=2))(pixels)
    [right] = spread_scores(Detector(cfg, 'none'))(pixels[:, 160:])
    moved = right.pred_instances.bboxes + torch.tensor([160.0, 0, 160, 0])
    found = merged.pred_instances.bboxes
    # What reaches beyond a tile is clipped in the one and not in the other.
    limits = torch.tensor([[161.0, 1, 161, 1], [319, 159, 319, 159]])
    inside = (found > limits[0]) & (found < limits[1])
    inner = found[inside.all(1)]
    assert len(inner) > 0
    assert (inner[:, None] - moved[None]).abs().amax(2).amin(1).max() < 0.01


def test_detector__tiles_with_test_time_augmentation() -> None:
    detector = Detector(lite0(64), 'none', tta=TTA(scales=()), tiles='2x1', batch_size=3)
    [sample] = detector(random_image())
    assert len(sample.pred_instances) > 0
    assert type(detector._network.module).__name__ == 'EfficientDetTTAModel'


def test_detector__mmdets_own_detectors(tiny_config: Config) -> None:
    [sample] = Detector(tiny_config, 'none', tiles='2x2')(random_image())
    assert sample.ori_shape == (90, 120)
    boxes = sample.pred_instances.bboxes
    assert len(boxes) > 0
    assert (boxes[:, 2] <= 120).all()
    assert (boxes[:, 3] <= 90).all()
    assert (boxes[:, 0] > 60).any()
