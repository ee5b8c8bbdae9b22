from pathlib import Path

import pytest
import torch

from effdet_plugin.convert.key_map import KeyMap
from effdet_plugin.convert.key_map_pytorch import EFFDET, OWN
from effdet_plugin.convert.key_map_tensorflow import OBJECTS, VARIABLES
from effdet_plugin.convert.sources import Source, select
from effdet_plugin.errors import CheckpointError

EMA = '/ExponentialMovingAverage'


@pytest.mark.parametrize(
    ('key_map', 'name', 'expected'),
    [
        (VARIABLES, 'class_net/class-0/bias:0', 'class_net/class-0/bias'),
        (VARIABLES, 'my-model/box_net/box-0/bias', 'box_net/box-0/bias'),
        (
            VARIABLES,
            'efficientnet-b0/stem_1/conv2d_1/kernel:0',
            'efficientnet-b0/stem/conv2d/kernel',
        ),
        (
            VARIABLES,
            'net/efficientnet-lite0/stem_2/tpu_batch_normalization_3/gamma',
            'efficientnet-lite0/stem/tpu_batch_normalization/gamma',
        ),
        (
            VARIABLES,
            'efficientnet-b0/blocks_0/tpu_batch_normalization_1/gamma',
            'efficientnet-b0/blocks_0/tpu_batch_normalization_1/gamma',
        ),
        (OBJECTS, 'model/backbone/_stem/_bn0/gamma', 'backbone/_stem/_bn/gamma'),
        (OBJECTS, 'class_net/bns/2/level-5/beta', 'class_net/bns/2/2/beta'),
        (OBJECTS, 'fpn_cells/cells/0/fnodes/1/vars/0', 'fpn_cells/cells/0/fnodes/1/WSM'),
        (OBJECTS, 'fpn_cells/cells/0/fnodes/1/vars/2', 'fpn_cells/cells/0/fnodes/1/WSM_2'),
        (EFFDET, 'module.model.fpn.cell.0.x', 'fpn.cell.0.x'),
        (EFFDET, 'class_net.bn_rep.4.2.weight', 'class_net.bn_rep.2.4.bn.weight'),
        (EFFDET, 'box_net.bn_rep.2.4.bn.weight', 'box_net.bn_rep.2.4.bn.weight'),
        (OWN, 'module.neck.cells.0.x', 'neck.cells.0.x'),
    ],
)
def test_canonical__names(key_map: KeyMap, name: str, expected: str) -> None:
    assert key_map.canonical(name) == expected


def _source(*names: str) -> Source:
    shapes = dict.fromkeys(names, (2,))
    return Source(Path('x'), 'test', VARIABLES, shapes, lambda name: torch.ones(2), '')


def test_select__averages_replace_raw_values() -> None:
    source = _source('class_net/a', f'class_net/a{EMA}', 'class_net/b', 'class_net/a/Momentum')
    selection = select(source)
    assert selection.names == {'class_net/a': f'class_net/a{EMA}', 'class_net/b': 'class_net/b'}
    assert selection.left_out == {
        'class_net/a': 'raw value; its moving average is used',
        'class_net/a/Momentum': 'optimizer slot',
    }
    assert selection.is_averaged
    assert selection.num_raw == 1


def test_select__raw_on_request() -> None:
    selection = select(_source('class_net/a', f'class_net/a{EMA}'), raw=True)
    assert selection.names == {'class_net/a': 'class_net/a'}
    assert list(selection.left_out) == [f'class_net/a{EMA}']
    assert not selection.is_averaged


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('global_step', 'step counter'),
        ('class_net/a/Adam_1', 'optimizer slot'),
        ('class_net/a/momentum', 'optimizer slot'),
        ('optimizer/learning_rate', 'optimizer'),
        ('optimizer_weights/SGD/a:0', 'optimizer'),
        ('beta1_power', 'optimizer'),
    ],
)
def test_select__left_out(name: str, reason: str) -> None:
    selection = select(_source(name))
    assert selection.names == {}
    assert selection.left_out == {name: reason}


def test_select__a_layer_without_a_place_is_not_left_out() -> None:
    names = ('efficientnet-b0/head/conv2d/kernel', 'class_net/class-9/beta')
    assert set(select(_source(*names)).names) == set(names)


def test_select__two_tensors_of_one_variable() -> None:
    with pytest.raises(CheckpointError, match='are both class_net/a'):
        select(_source('class_net/a', 'model/class_net/a'))
