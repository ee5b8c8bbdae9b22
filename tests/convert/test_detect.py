import pytest
import torch
from reference_variables import MODELS, structure_of, variables

from effdet_plugin.convert import automl, effdet, keras, native
from effdet_plugin.convert.architecture import state_shapes
from effdet_plugin.convert.detect import detect
from effdet_plugin.convert.rules import invert
from effdet_plugin.errors import CheckpointError


@pytest.mark.parametrize('model', MODELS)
def test_detect__network_and_structure_from_tensors(model: str) -> None:
    name, structure = detect(automl.DIALECT, variables(model))
    assert name == ('d6' if model == 'd7' else model)
    assert structure == structure_of(model)


@pytest.mark.parametrize('dialect', [effdet.DIALECT, keras.DIALECT, native.DIALECT])
@pytest.mark.parametrize('model', ['d0', 'd7x', 'lite3x'])
def test_detect__every_dialect(dialect: object, model: str) -> None:
    structure = structure_of(model, num_classes=7)
    state = {
        name: torch.empty(shape, device='meta') for name, shape in state_shapes(structure).items()
    }
    theirs = invert(dialect, structure, state)  # type: ignore[arg-type]
    shapes = {name: tuple(value.shape) for name, value in theirs.items()}
    assert detect(dialect, shapes) == (model, structure)  # type: ignore[arg-type]


def test_detect__twins_are_told_by_the_caller() -> None:
    assert detect(automl.DIALECT, variables('d6'), 'd7')[0] == 'd7'
    assert detect(automl.DIALECT, variables('d7'))[0] == 'd6'


@pytest.mark.parametrize('wrong', ['d0', 'd2', 'lite1'])
def test_detect__another_name_is_refused(wrong: str) -> None:
    with pytest.raises(CheckpointError, match=f'these are weights of d1 .*not of {wrong}'):
        detect(automl.DIALECT, variables('d1'), wrong)


def test_detect__no_such_model() -> None:
    with pytest.raises(CheckpointError, match='--model d9: not a known network'):
        detect(automl.DIALECT, variables('d0'), 'd9')


@pytest.mark.parametrize(
    'lost',
    ['resample_p6', 'efficientnet-b0/stem', 'class_net/class-predict', 'box_net/box-predict'],
)
def test_detect__not_whole(lost: str) -> None:
    rest = {name: shape for name, shape in variables('d0').items() if not name.startswith(lost)}
    with pytest.raises(CheckpointError, match='not a whole EfficientDet'):
        detect(automl.DIALECT, rest)


@pytest.mark.parametrize(
    'lost', ['fpn_cells/cell_2', 'efficientnet-b0/blocks_7/', 'class_net/class-1/']
)
def test_detect__a_part_is_missing(lost: str) -> None:
    rest = {name: shape for name, shape in variables('d0').items() if not name.startswith(lost)}
    with pytest.raises(CheckpointError, match='no known EfficientDet'):
        detect(automl.DIALECT, rest)


def test_detect__outputs_that_do_not_belong_together() -> None:
    shapes = dict(variables('d0')) | {'class_net/class-predict/bias': (811,)}
    with pytest.raises(CheckpointError, match='811 class and 36 box outputs'):
        detect(automl.DIALECT, shapes)
