from dataclasses import replace

import pytest
import torch
from reference_variables import MODELS, numbered_values, structure_of, variables

from effdet_plugin.convert.detect import detect
from effdet_plugin.convert.key_map import KeyMap, apply, expand, invert
from effdet_plugin.convert.key_map_pytorch import EFFDET, OWN
from effdet_plugin.convert.key_map_tensorflow import OBJECTS, VARIABLES
from effdet_plugin.convert.networks import state_shapes
from effdet_plugin.errors import CheckpointError

KEY_MAPS = {'variables': VARIABLES, 'objects': OBJECTS, 'effdet': EFFDET, 'own': OWN}
D0 = structure_of('d0')


def _bits(value: torch.Tensor) -> torch.Tensor:
    return value.view(torch.int32) if value.dtype == torch.float32 else value


@pytest.mark.parametrize('model', MODELS)
def test_expand__names_exactly_the_reference_variables(model: str) -> None:
    structure = structure_of(model)
    pairs = expand(VARIABLES, structure, state_shapes(structure))
    sources = [source for pair in pairs for source in pair.sources]
    assert len(sources) == len(set(sources))
    assert set(sources) == set(variables(model))


@pytest.mark.parametrize('model', MODELS)
def test_apply__shapes_of_all_networks(model: str) -> None:
    shapes = variables(model)
    structure = structure_of(model)
    state, mapped, filled = apply(
        VARIABLES,
        structure,
        state_shapes(structure),
        shapes,
        lambda name: torch.empty(shapes[name], device='meta'),
    )
    assert {name: tuple(value.shape) for name, value in state.items()} == state_shapes(structure)
    assert all(name.endswith('num_batches_tracked') for name in filled)
    assert len(mapped) + len(filled) == len(state)


@pytest.mark.parametrize('key_map', KEY_MAPS.values(), ids=KEY_MAPS)
@pytest.mark.parametrize('model', ['d0', 'd1', 'd7x', 'lite0'])
def test_expand__every_tensor_once(key_map: KeyMap, model: str) -> None:
    structure = structure_of(model)
    pairs = expand(key_map, structure, state_shapes(structure))
    sources = [source for pair in pairs for source in pair.sources]
    assert len(sources) == len(set(sources))
    without = {name for name in state_shapes(structure) if name.endswith('num_batches_tracked')}
    assert {pair.ours for pair in pairs} >= state_shapes(structure).keys() - without


@pytest.mark.parametrize('model', ['d0', 'lite0'])
@pytest.mark.parametrize('key_map', KEY_MAPS.values(), ids=KEY_MAPS)
def test_apply_invert__is_the_identity_in_every_key_map(model: str, key_map: KeyMap) -> None:
    values = numbered_values(model)
    structure = structure_of(model)
    ours, _, _ = apply(
        VARIABLES, structure, state_shapes(structure), variables(model), values.__getitem__
    )
    theirs = invert(key_map, structure, ours)
    shapes = {name: tuple(value.shape) for name, value in theirs.items()}
    again, _, _ = apply(key_map, structure, state_shapes(structure), shapes, theirs.__getitem__)
    assert list(again) == list(ours)
    assert all(torch.equal(_bits(again[name]), _bits(ours[name])) for name in ours)
    back = invert(VARIABLES, structure, again)
    assert back.keys() == values.keys()
    assert all(torch.equal(_bits(back[name]), _bits(values[name])) for name in values)
    assert all(back[name].shape == value.shape for name, value in values.items())


def test_apply__layouts_by_hand() -> None:
    values = numbered_values('d0')
    ours, _, _ = apply(VARIABLES, D0, state_shapes(D0), variables('d0'), values.__getitem__)
    kernel = values['efficientnet-b0/blocks_1/conv2d/kernel']
    assert torch.equal(
        _bits(ours['backbone.model.blocks.1.0.conv_pw.weight'][5, 3, 0, 0]),
        _bits(kernel[0, 0, 3, 5]),
    )
    depthwise = values['efficientnet-b0/blocks_3/depthwise_conv2d/depthwise_kernel']
    assert torch.equal(
        _bits(ours['backbone.model.blocks.2.0.conv_dw.weight'][7, 0, 4, 1]),
        _bits(depthwise[4, 1, 7, 0]),
    )
    weights = ours['neck.cells.1.nodes.4.fusion.weights']
    for position, suffix in enumerate(['', '_1', '_2']):
        expected = values[f'fpn_cells/cell_1/fnode4/WSM{suffix}']
        assert torch.equal(_bits(weights[position]), _bits(expected))


def test_apply__box_order() -> None:
    values = numbered_values('d0')
    ours, _, _ = apply(VARIABLES, D0, state_shapes(D0), variables('d0'), values.__getitem__)
    bias = _bits(values['box_net/box-predict/bias']).reshape(9, 4)  # ty, tx, th, tw
    kernel = _bits(values['box_net/box-predict/pointwise_kernel'])[0, 0].reshape(64, 9, 4)
    ours_bias = _bits(ours['bbox_head.box_tower.predict.pointwise.bias']).reshape(9, 4)
    ours_kernel = _bits(ours['bbox_head.box_tower.predict.pointwise.weight']).reshape(9, 4, 64)
    for place, coordinate in enumerate([1, 0, 3, 2]):
        assert torch.equal(ours_bias[:, place], bias[:, coordinate])
        assert torch.equal(ours_kernel[:, place], kernel[:, :, coordinate].T)


@pytest.mark.parametrize(
    'options',
    [
        {'separable': False},
        {'node_bias': False},
        {'resample_norm': False},
        {'fusion': 'channel'},
        {'fusion': 'sum'},
        {'topology': 'qufpn'},
        {'num_anchors': 12, 'num_classes': 7},
    ],
    ids=str,
)
def test_apply_invert__options_of_the_network(options: dict[str, object]) -> None:
    structure = replace(D0, **options)  # type: ignore[arg-type]
    state = {
        name: torch.rand(shape) if shape else torch.tensor(3)
        for name, shape in state_shapes(structure).items()
    }
    theirs = invert(VARIABLES, structure, state)
    shapes = {name: tuple(value.shape) for name, value in theirs.items()}
    assert detect(VARIABLES, shapes) == structure
    again, _, _ = apply(VARIABLES, structure, state_shapes(structure), shapes, theirs.__getitem__)
    floats = [name for name in state if not name.endswith('num_batches_tracked')]
    assert all(torch.equal(state[name], again[name]) for name in floats)


def _apply_meta(shapes: dict[str, tuple[int, ...]]) -> None:
    apply(
        VARIABLES,
        D0,
        state_shapes(D0),
        shapes,
        lambda name: torch.empty(shapes[name], device='meta'),
    )


def test_apply__missing_and_unknown_are_both_listed() -> None:
    shapes = dict(variables('d0'))
    del shapes['fpn_cells/cell_1/fnode0/WSM_1']
    shapes['fpn_cells/cell_1/fnode0/WSM_7'] = ()
    with pytest.raises(CheckpointError) as caught:
        _apply_meta(shapes)
    assert '1 missing: fpn_cells/cell_1/fnode0/WSM_1;' in str(caught.value)
    assert '1 without a place: fpn_cells/cell_1/fnode0/WSM_7' in str(caught.value)
    assert '\n' not in str(caught.value)


def test_apply__wrong_shape() -> None:
    shapes = dict(variables('d0')) | {'class_net/class-0/bias': (65,)}
    with pytest.raises(CheckpointError, match='class-0/bias has the shape \\(65,\\)'):
        _apply_meta(shapes)
    shapes = dict(variables('d0')) | {'class_net/class-0/pointwise_kernel': (64, 64)}
    with pytest.raises(CheckpointError, match='pointwise_kernel'):
        _apply_meta(shapes)


def test_apply__redundant_biases_are_filled_all_or_none() -> None:
    state = {name: torch.ones(shape) for name, shape in state_shapes(D0).items()}
    theirs = invert(EFFDET, D0, state)
    biases = [
        name
        for name in theirs
        if name.endswith(('conv_pw.bias', 'conv.conv.bias')) and '.predict.' not in name
    ]
    native_names = {k: tuple(v.shape) for k, v in theirs.items() if k not in biases}
    state, _, filled = apply(EFFDET, D0, state_shapes(D0), native_names, theirs.__getitem__)
    assert len(filled) == len(biases) == 24 + 6 + 6
    assert state['neck.cells.0.nodes.0.conv.pointwise.bias'].eq(0).all()
    some = {k: tuple(v.shape) for k, v in theirs.items() if k != biases[3]}
    with pytest.raises(CheckpointError, match='1 missing'):
        apply(EFFDET, D0, state_shapes(D0), some, theirs.__getitem__)
