"""Whole networks, from the image to class and box outputs, every endpoint of every file."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from ladder import difference, nchw, nhwc, swap_channels, worst
from oracle_networks import build
from torch import Tensor

import support

# Two float32 runs of the reference differ by up to 4.3e-6 among themselves.
LIMIT = 1e-5
NAMES = sorted(
    {path.stem.removeprefix('net_') for path in support.oracle_dir().glob('net_*.npz')} | {'d0_64'}
)


def endpoints(detector: Any, images: Tensor) -> dict[str, Tensor]:
    """Everything that the oracle has, by its names."""
    features = detector.backbone(images)
    levels = detector.neck.add_levels(features)
    cell = detector.neck.cells[0](levels)
    pyramid = detector.neck(features)
    logits, codes = detector.bbox_head(pyramid)
    outputs = {f'P{level}': x for level, x in enumerate(features, start=1)}
    for prefix, maps in (('', levels), ('cell0_', cell), ('fpn_', pyramid), ('class_', logits)):
        outputs.update({f'{prefix}P{level}': x for level, x in enumerate(maps, start=3)})
    outputs.update({f'box_P{level}': swap_channels(x) for level, x in enumerate(codes, start=3)})
    return outputs


def images(model: str, arrays: Mapping[str, np.ndarray]) -> Tensor:
    seeds = [int(seed) for seed in arrays['image_seeds']]
    height, width = (int(side) for side in arrays['size_hw'])
    return nchw(support.recipe().net_input(f'efficientdet-{model}', seeds, height, width))


@pytest.mark.parametrize('name', NAMES)
def test_network__every_endpoint(name: str) -> None:
    arrays = support.load_oracle(f'net_{name}')
    model, _, option = name.partition('_')
    detector = build(model, option, every_endpoint=True)
    with torch.no_grad():
        outputs = endpoints(detector, images(model, arrays))
    stored = set(support.oracle_io().names(arrays)) - {'image_seeds', 'size_hw'}
    assert stored == outputs.keys()
    found = worst([(key, difference(arrays, key, nhwc(outputs[key]))) for key in stored])
    assert found[1] < LIMIT, found
