"""Anchors of every setting, and feature sizes of every level."""

from typing import Any

import pytest
import torch
from ladder import difference, swap

import support
from effdet_plugin.ops import anchor_boxes, level_sizes
from effdet_plugin.task_modules import EfficientDetAnchorGenerator

ARRAYS = support.load_oracle('anchors')
LIMIT = 1e-7  # of the largest coordinate: 1e-4 pixels

# (height, width), and what differs from levels 3 to 7, scale 4, three octaves, aspects 1, 2, 0.5
CASES: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {
    'd0_512': ((512, 512), {}),
    'd0_256x384': ((256, 384), {}),
    'odd_277x331': ((277, 331), {}),
    'odd_100x163': ((100, 163), {}),
    'string_384x256_is_WxH': ((256, 384), {}),
    'lite0_320': ((320, 320), dict(octave_base_scale=3.0)),
    'd7_1536': ((1536, 1536), dict(octave_base_scale=5.0)),
    'd7x_1536': ((1536, 1536), dict(max_level=8)),
    'pairs_128': (
        (128, 128),
        dict(scales_per_octave=2, aspect_ratios=[(0.7, 1.4), (1.0, 1.0), (1.4, 0.7)]),
    ),
    'scales_per_level_96': (
        (96, 96),
        dict(
            scales_per_octave=1,
            aspect_ratios=[1.0, 3.0],
            octave_base_scale=[3.0, 3.5, 4.0, 4.5, 5.0],
        ),
    ),
    'tiny_33': ((33, 17), {}),
}


def test_cases__none_is_left_out() -> None:
    names = support.oracle_io().names(ARRAYS)
    assert {name for name in names if not name.endswith('_feat_hw')} == CASES.keys()


@pytest.mark.parametrize('name', CASES)
def test_anchors__function(name: str) -> None:
    size, settings = CASES[name]
    assert difference(ARRAYS, name, swap(anchor_boxes(size, **settings))) < LIMIT


@pytest.mark.parametrize('name', CASES)
def test_anchors__generator_of_the_head(name: str) -> None:
    size, settings = CASES[name]
    sizes = level_sizes(size, 3, settings.get('max_level', 7))
    generator = EfficientDetAnchorGenerator(
        strides=[8, 16, 32, 64, 128, 256][: len(sizes)],
        octave_base_scale=settings.get('octave_base_scale', 4.0),
        scales_per_octave=settings.get('scales_per_octave', 3),
        aspect_ratios=settings.get('aspect_ratios', (1.0, 2.0, 0.5)),
    )
    anchors = torch.cat(generator.grid_priors(sizes, image_size=size))
    assert difference(ARRAYS, name, swap(anchors)) < LIMIT


@pytest.mark.parametrize('name', CASES)
def test_level_sizes__halved_with_rounding_up(name: str) -> None:
    size, settings = CASES[name]
    highest = settings.get('max_level', 7)
    assert [size, *level_sizes(size, 1, highest)] == [
        tuple(row) for row in ARRAYS[f'{name}_feat_hw'].tolist()
    ]
