"""Codes of boxes, both ways."""

import torch
from ladder import difference, swap
from torch import Tensor

import support
from effdet_plugin.ops.boxes import center_size
from effdet_plugin.task_modules import EfficientDetBoxCoder

ARRAYS = support.load_oracle('box_coder')
LIMIT = 1e-6
CODER = EfficientDetBoxCoder()


def stored(name: str) -> Tensor:
    return swap(torch.from_numpy(ARRAYS[name]))


def test_encode() -> None:
    codes = CODER.encode(stored('anchors'), stored('boxes'))
    assert difference(ARRAYS, 'encoded', swap(codes)) < LIMIT


def test_decode() -> None:
    boxes = CODER.decode(stored('anchors'), stored('rel'))
    assert difference(ARRAYS, 'decoded', swap(boxes)) < LIMIT


def test_round_trip() -> None:
    codes = CODER.encode(stored('anchors'), stored('boxes'))
    boxes = CODER.decode(stored('anchors'), codes)
    assert difference(ARRAYS, 'round_trip', swap(boxes)) < LIMIT


def test_center_size() -> None:
    x, y, width, height = center_size(stored('anchors'))
    expected = torch.from_numpy(ARRAYS['centersize'])
    torch.testing.assert_close(torch.stack([y, x, height, width], -1), expected)
