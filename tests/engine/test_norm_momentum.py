"""The momentum reaches every BN, and statistics follow at its speed."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from effdet_plugin.engine.norm_momentum import NormMomentumHook
from effdet_plugin.errors import ConfigError


def test_norm_momentum__every_bn_follows_at_its_speed() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1, momentum=0.01), nn.Sequential(nn.BatchNorm1d(4)))
    runner: Any = SimpleNamespace(model=model)
    NormMomentumHook(0.25).before_train(runner)
    bn: Any = model[0]
    bn.train()(torch.full((2, 1, 3, 3), 8.0))
    assert float(bn.running_mean) == pytest.approx(2.0)
    assert model.get_submodule('1.0').momentum == 0.25


@pytest.mark.parametrize('momentum', [0, -0.1, 1.5])
def test_norm_momentum__refuses_what_is_no_share(momentum: float) -> None:
    with pytest.raises(ConfigError, match='NormMomentumHook'):
        NormMomentumHook(momentum)
