import pytest
import torch
from reference_variables import MODELS, structure_of, variables

from effdet_plugin.convert.detect import detect
from effdet_plugin.convert.key_map import KeyMap, apply, invert
from effdet_plugin.convert.key_map_pytorch import EFFDET, OWN
from effdet_plugin.convert.key_map_tensorflow import OBJECTS, VARIABLES
from effdet_plugin.convert.networks import Structure, equal_networks, state_shapes
from effdet_plugin.errors import CheckpointError


@pytest.mark.parametrize('model', MODELS)
def test_detect__network_and_structure_from_tensors(model: str) -> None:
    structure = detect(VARIABLES, variables(model))
    assert structure == structure_of('d6' if model == 'd7' else model)


@pytest.mark.parametrize('key_map', [EFFDET, OBJECTS, OWN], ids=lambda key_map: key_map.name)
@pytest.mark.parametrize('model', ['d0', 'd7x', 'lite3x'])
def test_detect__every_key_map(key_map: KeyMap, model: str) -> None:
    structure = structure_of(model, num_classes=7)
    state = {
        name: torch.empty(shape, device='meta') for name, shape in state_shapes(structure).items()
    }
    theirs = invert(key_map, structure, state)
    shapes = {name: tuple(value.shape) for name, value in theirs.items()}
    assert detect(key_map, shapes) == structure


def test_detect__the_caller_decides_between_equal_networks() -> None:
    assert detect(VARIABLES, variables('d6'), 'd7').model == 'd7'
    assert detect(VARIABLES, variables('d7')).model == 'd6'
    assert equal_networks('d7') == ['d6', 'd7']
    assert all(equal_networks(model) == [model] for model in {*MODELS} - {'d6', 'd7'})


@pytest.mark.parametrize('wrong', ['d0', 'd2', 'lite1'])
def test_detect__another_name_is_refused(wrong: str) -> None:
    with pytest.raises(CheckpointError, match=f'these are weights of d1 .*not of {wrong}'):
        detect(VARIABLES, variables('d1'), wrong)


def test_detect__no_such_model() -> None:
    with pytest.raises(CheckpointError, match='--model d9: not a known network'):
        detect(VARIABLES, variables('d0'), 'd9')


def _apply_meta(structure: Structure, names: dict[str, tuple[int, ...]]) -> None:
    shapes = state_shapes(structure)
    apply(VARIABLES, structure, shapes, names, lambda n: torch.empty(names[n], device='meta'))


def _without(lost: str) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in variables('d0').items() if not name.startswith(lost)}


@pytest.mark.parametrize('lost', ['resample_p6', 'class_net/class-predict', 'box_net/box-predict'])
def test_detect__an_incomplete_file_names_the_tensor(lost: str) -> None:
    with pytest.raises(CheckpointError, match=lost):
        detect(VARIABLES, _without(lost))


def test_detect__an_incomplete_file_is_no_known_network() -> None:
    with pytest.raises(CheckpointError, match=r'no known EfficientDet.* 2 cells'):
        detect(VARIABLES, _without('fpn_cells/cell_2'))


@pytest.mark.parametrize(
    'lost', ['efficientnet-b0/stem/', 'efficientnet-b0/blocks_7/', 'class_net/class-1/']
)
def test_detect__a_missing_layer_is_listed(lost: str) -> None:
    names = _without(lost)
    structure = detect(VARIABLES, names)
    assert structure == structure_of('d0')
    count = len(variables('d0')) - len(names)
    with pytest.raises(CheckpointError, match=f'{count} missing: {lost}'):
        _apply_meta(structure, names)


def test_detect__another_backbone_is_refused() -> None:
    own = {n: s for n, s in variables('d0').items() if not n.startswith('efficientnet-')}
    others = {n: s for n, s in variables('d1').items() if n.startswith('efficientnet-')}
    names = {**own, **others}
    with pytest.raises(CheckpointError, match=r'missing: efficientnet-b0/.*place: efficientnet-b1'):
        _apply_meta(detect(VARIABLES, names), names)


def test_detect__outputs_that_do_not_belong_together() -> None:
    shapes = dict(variables('d0')) | {'class_net/class-predict/bias': (811,)}
    with pytest.raises(CheckpointError, match='811 class and 36 box outputs'):
        detect(VARIABLES, shapes)
