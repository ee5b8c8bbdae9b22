"""Training state as plain types, and back."""

from collections import OrderedDict
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub

from effdet_plugin.engine.plain import from_plain, to_plain


class Color(IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_('a'), 'a'),
        (Color.RED, 1),
        (Path('a') / 'b', str(Path('a') / 'b')),
        ((1, [2, None]), (1, [2, None])),
        ({'a': np.float32(1)}, {'a': 1.0}),
        (ConfigDict(a=dict(b=1)), {'a': {'b': 1}}),
        (np.array(['x', 'y']), ['x', 'y']),
        (frozenset({7}), (7,)),
    ],
)
def test_to_plain__types(value: Any, expected: Any, tmp_path: Path) -> None:
    plain = to_plain(value)
    assert plain == expected
    assert type(plain) is type(expected)
    torch.save(plain, tmp_path / 'x')
    assert torch.load(tmp_path / 'x', weights_only=True) == expected


@pytest.mark.parametrize('kind', ['float64', 'float32', 'int64', 'uint8', 'uint32', 'bool'])
def test_to_plain__arrays(kind: str) -> None:
    plain = to_plain(np.array([0, 1, 1], dtype=kind))
    assert plain.tolist() == [0, 1, 1]
    assert plain.dtype is (torch.int64 if kind == 'uint32' else getattr(torch, kind))


def test_message_hub__round_trip_through_a_plain_file(tmp_path: Path) -> None:
    hub = MessageHub('one')
    for loss in (3.0, 2.0, 4.0):
        hub.update_scalar('train/loss', loss)
    hub.update_info('best_score', np.float64(0.25))
    hub.update_info('shape', (2, 3))
    torch.save(to_plain(hub.state_dict()), tmp_path / 'hub.pth')
    other = MessageHub('two')
    other.load_state_dict(from_plain(torch.load(tmp_path / 'hub.pth', weights_only=True)))
    buffer = other.get_scalar('train/loss')
    assert isinstance(buffer, HistoryBuffer)
    assert (buffer.mean(), buffer.current(), buffer.max_length) == (3.0, 4.0, 1000000)
    buffer.update(1)
    assert buffer.mean() == 2.5
    assert other.get_info('best_score') == 0.25
    assert other.get_info('shape') == (2, 3)


def test_from_plain__leaves_the_rest() -> None:
    value = OrderedDict(a=[1, {'b': torch.ones(2)}], c='x')
    back = from_plain(value)
    assert back['a'][0] == 1
    assert back['a'][1]['b'] is value['a'][1]['b']
