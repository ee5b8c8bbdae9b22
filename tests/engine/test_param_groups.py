"""Groups: settings as by mmengine's constructor, one group per setting; rates by stage."""

import pytest
import torch
from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from effdet_plugin.engine.param_groups import (
    GroupedOptimWrapperConstructor,
    LayerDecayOptimWrapperConstructor,
    stage_depths,
)
from effdet_plugin.errors import ConfigError
from effdet_plugin.models import TimmBackbone

WRAPPER = {
    'type': 'ClippedOptimWrapper',
    '_scope_': 'mmdet',
    'weight_decay_mode': 'decoupled',
    'optimizer': {'type': 'SGD', 'lr': 0.16, 'momentum': 0.9, 'weight_decay': 4e-5},
}
PARAMWISE = {
    'norm_decay_mult': 0,
    'bias_decay_mult': 0,
    'custom_keys': {'fusion.weights': {'decay_mult': 0}, 'backbone': {'lr_mult': 0.1}},
    'bypass_duplicate': True,
}


class Fusion(nn.Module):
    """A weight that is neither a kernel nor called bias."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(nn.init.ones_(nn.Linear(2, 1).weight[0].detach()))


class Net(nn.Module):
    """Kernels, biases, norms, fusion weights and a part that stands in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3))
        self.fusion = Fusion()
        self.head = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)])
        self.shared = self.head[0]


def settings(constructor: type, net: Net) -> dict[str, tuple[float, float]]:
    names = {id(p): name for name, p in net.named_parameters()}
    groups = constructor(WRAPPER, PARAMWISE)(net).optimizer.param_groups
    return {
        names[id(p)]: (group['lr'], group['weight_decay'])
        for group in groups
        for p in group['params']
    }


@pytest.mark.filterwarnings('ignore')
def test_groups__each_parameter_keeps_its_settings() -> None:
    net = Net()
    own = settings(GroupedOptimWrapperConstructor, net)
    assert own == settings(DefaultOptimWrapperConstructor, net)
    assert own['fusion.weights'] == (0.16, 0)
    assert own['backbone.0.weight'] == (pytest.approx(0.016), 4e-5)
    assert len(own) == len(list(net.parameters()))


def test_groups__one_per_setting_in_the_models_order() -> None:
    net = Net()
    groups = GroupedOptimWrapperConstructor(WRAPPER, PARAMWISE)(net).optimizer.param_groups
    assert [len(g['params']) for g in groups] == [6, 1, 1, 3]
    again = GroupedOptimWrapperConstructor(WRAPPER, PARAMWISE)(net).optimizer.param_groups
    ids = [[id(p) for p in g['params']] for g in groups]
    assert ids == [[id(p) for p in g['params']] for g in again]
    names = {id(p): i for i, p in enumerate(net.parameters())}
    assert all(sorted(group, key=names.__getitem__) == group for group in ids)


@pytest.mark.parametrize('optimizer', ['SGD', 'AdamW'])
def test_update__is_one_call_a_group(optimizer: str) -> None:
    net = Net()
    settings = {**WRAPPER, 'optimizer': {'type': optimizer, 'lr': 0.1}}
    built = GroupedOptimWrapperConstructor(settings)(net).optimizer
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    built.step()
    with torch.autograd.profiler.profile() as profile:
        built.step()
    names = [event.name for event in profile.function_events]
    assert len(built.param_groups) == 1
    assert names.count(f'aten::_fused_{optimizer.lower()}_') == 1
    assert not {'aten::mul_', 'aten::lerp_', 'aten::addcdiv_'} & set(names)


def test_update__a_choice_in_the_config_wins() -> None:
    settings = {**WRAPPER, 'optimizer': {'type': 'SGD', 'lr': 0.1, 'foreach': True}}
    built = GroupedOptimWrapperConstructor(settings)(Net()).optimizer
    assert built.defaults['foreach']
    assert not built.defaults['fused']


def test_groups__log_is_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        GroupedOptimWrapperConstructor(WRAPPER, PARAMWISE)(Net())
    finally:
        logger.removeHandler(caplog.handler)
    lines = [r.getMessage() for r in caplog.records if r.levelname == 'INFO']
    assert len(lines) == 4
    assert lines[0].startswith('Parameter group of 6 tensors: lr=0.016')


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
        (['layer1.x', 'transition1.x', 'stage2.x', 'stage3.x'], [3, 3, 2, 1]),
    ],
)
def test_stage_depths__of_others(names: list[str], expected: list[int]) -> None:
    assert list(stage_depths([f'backbone.{name}' for name in names]).values()) == expected


class StagedNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict(
            {
                'conv1': nn.Conv2d(3, 4, 3),
                'layer1': nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
            }
        )
        self.bbox_head = nn.Conv2d(4, 2, 1)


def build_constructor(layer_decay: float | None = 0.5) -> LayerDecayOptimWrapperConstructor:
    paramwise = dict(norm_decay_mult=0.0)
    if layer_decay is not None:
        paramwise['layer_decay'] = layer_decay
    cfg = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, weight_decay=0.01))
    kind = OPTIM_WRAPPER_CONSTRUCTORS.get('LayerDecayOptimWrapperConstructor')
    return kind(cfg, paramwise)


def test_constructor__rates_fall_to_the_stem_and_decays_stay() -> None:
    model = StagedNet()
    optimizer = build_constructor()(model).optimizer
    rate = {p: g['lr'] for g in optimizer.param_groups for p in g['params']}
    decay = {p: g['weight_decay'] for g in optimizer.param_groups for p in g['params']}
    assert len(rate) == len(list(model.parameters()))
    assert rate[model.bbox_head.weight] == pytest.approx(0.1)
    conv, norm = model.backbone['layer1']
    assert rate[conv.weight] == rate[norm.weight] == pytest.approx(0.05)
    assert rate[model.backbone['conv1'].bias] == pytest.approx(0.025)
    assert (decay[conv.weight], decay[norm.weight]) == (0.01, 0.0)


def test_constructor__leaves_out_what_is_frozen() -> None:
    model = StagedNet()
    model.backbone.requires_grad_(False)
    groups = build_constructor()(model).optimizer.param_groups
    assert {id(p) for g in groups for p in g['params']} == set(
        map(id, model.bbox_head.parameters())
    )


@pytest.mark.parametrize('layer_decay', [None, 0, 1.5])
def test_constructor__refuses_a_decay_that_is_none(layer_decay: float | None) -> None:
    with pytest.raises(ConfigError, match='layer_decay'):
        build_constructor(layer_decay)


def test_constructor__refuses_to_scale_a_decay_that_is_not_there() -> None:
    """mmengine ends in a traceback."""
    wrapper = {'type': 'OptimWrapper', 'optimizer': {'type': 'AdamW', 'lr': 0.1}}
    build = OPTIM_WRAPPER_CONSTRUCTORS.get('GroupedOptimWrapperConstructor')
    assert build is not None
    with pytest.raises(ConfigError, match='no weight_decay, which norm_decay_mult'):
        build(wrapper, {'norm_decay_mult': 0})(nn.Linear(2, 2))
