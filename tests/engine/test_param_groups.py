"""Groups: as mmengine's constructor sets parameters, but one per setting."""

import pytest
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from effdet_plugin.engine.param_groups import GroupedOptimWrapperConstructor

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
