from pathlib import Path

import pytest
import torch

from effdet_plugin.convert import automl, effdet, keras, native
from effdet_plugin.convert.rules import Dialect
from effdet_plugin.convert.selection import canonical, select
from effdet_plugin.convert.sources import Source
from effdet_plugin.errors import CheckpointError

EMA = '/ExponentialMovingAverage'


@pytest.mark.parametrize(
    ('dialect', 'name', 'expected'),
    [
        (automl, 'class_net/class-0/bias:0', 'class_net/class-0/bias'),
        (automl, 'my-model/box_net/box-0/bias', 'box_net/box-0/bias'),
        (
            automl,
            'efficientnet-b0/stem_1/conv2d_1/kernel:0',
            'efficientnet-b0/stem/conv2d/kernel',
        ),
        (
            automl,
            'net/efficientnet-lite0/stem_2/tpu_batch_normalization_3/gamma',
            'efficientnet-lite0/stem/tpu_batch_normalization/gamma',
        ),
        (
            automl,
            'efficientnet-b0/blocks_0/tpu_batch_normalization_1/gamma',
            'efficientnet-b0/blocks_0/tpu_batch_normalization_1/gamma',
        ),
        (keras, 'model/backbone/_stem/_bn0/gamma', 'backbone/_stem/_bn/gamma'),
        (keras, 'class_net/bns/2/level-5/beta', 'class_net/bns/2/2/beta'),
        (keras, 'fpn_cells/cells/0/fnodes/1/vars/0', 'fpn_cells/cells/0/fnodes/1/WSM'),
        (keras, 'fpn_cells/cells/0/fnodes/1/vars/2', 'fpn_cells/cells/0/fnodes/1/WSM_2'),
        (effdet, 'module.model.fpn.cell.0.x', 'fpn.cell.0.x'),
        (effdet, 'class_net.bn_rep.4.2.weight', 'class_net.bn_rep.2.4.bn.weight'),
        (effdet, 'box_net.bn_rep.2.4.bn.weight', 'box_net.bn_rep.2.4.bn.weight'),
        (native, 'module.neck.cells.0.x', 'neck.cells.0.x'),
    ],
)
def test_canonical__names(dialect: object, name: str, expected: str) -> None:
    assert canonical(dialect.DIALECT, name) == expected  # type: ignore[attr-defined]


def _source(*names: str, dialect: Dialect = automl.DIALECT) -> Source:
    shapes = dict.fromkeys(names, (2,))
    return Source(Path('x'), 'test', dialect, shapes, lambda name: torch.ones(2), '')


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
