"""Synchronised BN and back: the same outputs, timm's activations included."""

import copy
import warnings

import pytest
import timm
import torch
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from torch import nn

from effdet_plugin.engine.sync_bn import can_sync_bn, from_sync_bn, to_sync_bn


@pytest.fixture(scope='module')
def net() -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model('tf_efficientnet_b0', features_only=True, out_indices=(1,))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean)
    return model.eval()


@pytest.fixture(scope='module')
def picture() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_convert_and_revert__same_outputs(net: nn.Module, picture: torch.Tensor) -> None:
    expected = net(picture)
    synced = to_sync_bn(copy.deepcopy(net))
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in synced.modules()) > 5
    torch.testing.assert_close(synced(picture), expected)  # in eval mode nothing is exchanged
    assert list(synced.state_dict()) == list(net.state_dict())
    plain = from_sync_bn(synced)
    assert not [m for m in plain.modules() if isinstance(m, nn.SyncBatchNorm)]
    torch.testing.assert_close(plain(picture), expected, rtol=0, atol=0)
    torch.testing.assert_close(plain.train()(picture), copy.deepcopy(net).train()(picture))


def test_convert__keeps_settings_and_parameters(net: nn.Module) -> None:
    own = copy.deepcopy(net)
    parameters = list(own.parameters())
    synced = to_sync_bn(own)
    assert all(a is b for a, b in zip(parameters, synced.parameters(), strict=True))
    settings = {(m.eps, m.momentum) for m in net.modules() if isinstance(m, nn.BatchNorm2d)}
    assert settings == {
        (m.eps, m.momentum) for m in synced.modules() if isinstance(m, nn.SyncBatchNorm)
    }


def test_revert__plain_bn_too() -> None:
    block = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=1e-3, momentum=0.01))
    x = torch.randn(2, 3, 4, 4)
    back = from_sync_bn(to_sync_bn(copy.deepcopy(block)))
    torch.testing.assert_close(back(x), block(x))
    assert (back[1].eps, back[1].momentum) == (1e-3, 0.01)


def test_mmengines_converter__drops_the_activation(net: nn.Module, picture: torch.Tensor) -> None:
    """The reason for all this; when it fails, mmengine's own is right and this can go."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        other = revert_sync_batchnorm(convert_sync_batchnorm(copy.deepcopy(net), 'torch'))
    difference = max(
        float((a - b).abs().max()) for a, b in zip(other(picture), net(picture), strict=True)
    )
    assert difference > 0.1


def test_can_sync__not_in_one_process() -> None:
    assert not can_sync_bn()
