import pytest
import torch
from mmdet.registry import MODELS as REGISTRY
from mmengine import Config
from mmengine.registry import init_default_scope
from reference_variables import MODELS, parameters, structure_of

import support
from effdet_plugin.convert.architecture import (
    NETWORKS,
    blocks,
    network_name,
    pyramid_channels,
    state_shapes,
)


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
    assert len(blocks(NETWORKS[model].backbone)) == expected['n_blocks']


@pytest.mark.parametrize('model', MODELS)
def test_state_shapes__are_those_of_the_config(model: str) -> None:
    config = Config.fromfile(support.REPOSITORY / f'configs/efficientdet/{model}_coco.py')
    config.model.backbone.pretrained = False
    init_default_scope('mmdet')
    with torch.device('meta'):
        built = REGISTRY.build(config.model)
    actual = {name: tuple(value.shape) for name, value in built.state_dict().items()}
    expected = state_shapes(structure_of(model, num_classes=80))
    assert actual == expected
    assert list(actual) == list(expected)


@pytest.mark.parametrize(
    ('backbone', 'expected'),
    [
        ('b0', (40, 112, 320)),
        ('b3', (48, 136, 384)),
        ('b7', (80, 224, 640)),
        ('lite4', (56, 160, 448)),
    ],
)
def test_pyramid_channels__table(backbone: str, expected: tuple[int, ...]) -> None:
    assert pyramid_channels(backbone) == expected


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
    with pytest.raises(KeyError):
        network_name('d9')
