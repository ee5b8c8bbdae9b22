import pytest
import torch
from mmdet.registry import MODELS as REGISTRY
from mmengine import Config
from mmengine.registry import init_default_scope
from reference_variables import MODELS, parameters, structure_of

from effdet_plugin.convert.networks import config_path, network_name, state_shapes
from effdet_plugin.errors import CheckpointError


@pytest.mark.parametrize('model', MODELS)
def test_state_shapes__count_as_the_reference_does(model: str) -> None:
    sizes = {
        name: torch.Size(shape).numel() for name, shape in state_shapes(structure_of(model)).items()
    }
    counted = {name: size for name, size in sizes.items() if not name.endswith('_tracked')}
    trainable = {name: size for name, size in counted.items() if '.running_' not in name}
    expected = parameters(model)
    assert sum(trainable.values()) == expected['trainable']
    assert sum(counted.values()) == expected['with_moving_statistics']
    backbone = sum(size for name, size in trainable.items() if name.startswith('backbone.'))
    assert backbone == expected['parts']['backbone']
    depthwise = [name for name in sizes if name.startswith('backbone.') and '.conv_dw.' in name]
    assert len(depthwise) == expected['n_blocks']


@pytest.mark.parametrize('model', MODELS)
def test_state_shapes__are_those_of_the_config(model: str) -> None:
    config = Config.fromfile(config_path(f'{model}_coco'))
    config.model.backbone.pretrained = False
    init_default_scope('mmdet')
    with torch.device('meta'):
        built = REGISTRY.build(config.model)
    actual = {name: tuple(value.shape) for name, value in built.state_dict().items()}
    expected = state_shapes(structure_of(model, num_classes=80))
    assert actual == expected
    assert list(actual) == list(expected)


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('d0', 'd0'),
        ('efficientdet-d7x', 'd7x'),
        ('tf_efficientdet_d0_ap', 'd0'),
        ('d3-640', 'd3'),
        ('EfficientDet-Lite3x', 'lite3x'),
    ],
)
def test_network_name__forms(name: str, expected: str) -> None:
    assert network_name(name) == expected


def test_network_name__unknown() -> None:
    with pytest.raises(CheckpointError, match='d9'):
        network_name('d9')
