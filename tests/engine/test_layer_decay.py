import pytest
from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from effdet_plugin.engine.layer_decay import LayerDecayOptimWrapperConstructor, stage_depths
from effdet_plugin.errors import ConfigError
from effdet_plugin.models import TimmBackbone


def test_stage_depths__of_an_efficientnet() -> None:
    names = [f'backbone.{n}' for n, _ in TimmBackbone('tf_efficientnet_lite0').named_parameters()]
    depths = stage_depths([*names, 'neck.cells.0.nodes.0.conv.weight'])
    assert depths['backbone.model.conv_stem.weight'] == 8
    assert depths['backbone.model.bn1.weight'] == 8
    assert depths['backbone.model.blocks.0.0.conv_dw.weight'] == 7
    assert depths['backbone.model.blocks.6.0.conv_pw.weight'] == 1
    assert len(depths) == len(names)


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (['conv1.weight', 'layer1.0.weight', 'layer4.0.weight'], [3, 2, 1]),
        (['model.stem_0.weight', 'model.stages_0.x', 'model.stages_3.x'], [3, 2, 1]),
        (['stem.0.weight', 'stages.0.x', 'norm.weight'], [2, 1, 1]),
        (['weight'], [1]),
    ],
)
def test_stage_depths__of_others(names: list[str], expected: list[int]) -> None:
    assert list(stage_depths([f'backbone.{name}' for name in names]).values()) == expected


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict(
            {
                'conv1': nn.Conv2d(3, 4, 3),
                'layer1': nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
            }
        )
        self.bbox_head = nn.Conv2d(4, 2, 1)


def build(layer_decay: float | None = 0.5) -> LayerDecayOptimWrapperConstructor:
    paramwise = dict(norm_decay_mult=0.0)
    if layer_decay is not None:
        paramwise['layer_decay'] = layer_decay
    cfg = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, weight_decay=0.01))
    kind = OPTIM_WRAPPER_CONSTRUCTORS.get('LayerDecayOptimWrapperConstructor')
    return kind(cfg, paramwise)


def test_constructor__rates_fall_to_the_stem_and_decays_stay() -> None:
    model = Net()
    optimizer = build()(model).optimizer
    rate = {p: g['lr'] for g in optimizer.param_groups for p in g['params']}
    decay = {p: g['weight_decay'] for g in optimizer.param_groups for p in g['params']}
    assert len(rate) == len(list(model.parameters()))
    assert rate[model.bbox_head.weight] == pytest.approx(0.1)
    conv, norm = model.backbone['layer1']
    assert rate[conv.weight] == rate[norm.weight] == pytest.approx(0.05)
    assert rate[model.backbone['conv1'].bias] == pytest.approx(0.025)
    assert (decay[conv.weight], decay[norm.weight]) == (0.01, 0.0)


def test_constructor__leaves_out_what_is_frozen() -> None:
    model = Net()
    model.backbone.requires_grad_(False)
    groups = build()(model).optimizer.param_groups
    assert {id(p) for g in groups for p in g['params']} == set(
        map(id, model.bbox_head.parameters())
    )


@pytest.mark.parametrize('layer_decay', [None, 0, 1.5])
def test_constructor__refuses_a_decay_that_is_none(layer_decay: float | None) -> None:
    with pytest.raises(ConfigError, match='layer_decay'):
        build(layer_decay)
