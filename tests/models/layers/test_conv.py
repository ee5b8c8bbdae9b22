import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effdet_plugin.errors import ConfigError
from effdet_plugin.models.layers.conv import (
    BatchNorm2d,
    SeparableConv2d,
    build_activation,
    build_conv,
    init_fan_in_normal,
    init_glorot_uniform,
    init_normal,
)


def test_separable__depthwise_without_bias_then_pointwise_with() -> None:
    conv = SeparableConv2d(4, 6)
    assert conv.depthwise.bias is None
    assert conv.pointwise.bias is not None
    assert SeparableConv2d(4, 6, bias=False).pointwise.bias is None
    x = torch.randn(1, 4, 5, 7)
    expected = F.conv2d(
        F.conv2d(x, conv.depthwise.weight, padding=1, groups=4),
        conv.pointwise.weight,
        conv.pointwise.bias,
    )
    assert torch.equal(conv(x), expected)


def weights(conv: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in conv.named_parameters()}


def test_glorot__limits_of_the_references_fans() -> None:
    conv = build_conv(64, 64, separable=True)
    init_glorot_uniform(conv)
    found = weights(conv)
    depthwise, pointwise = found['depthwise.weight'], found['pointwise.weight']
    assert depthwise.abs().max().item() == pytest.approx((6 / 585) ** 0.5, rel=0.02)  # 0.1013
    assert depthwise.std().item() == pytest.approx(0.0585, rel=0.08)
    assert pointwise.abs().max().item() == pytest.approx((6 / 128) ** 0.5, rel=0.02)
    assert not found['pointwise.bias'].any()


def test_fan_in__standard_deviations() -> None:
    conv = build_conv(64, 810, separable=True)
    init_fan_in_normal(conv)
    found = weights(conv)
    depthwise, pointwise = found['depthwise.weight'], found['pointwise.weight']
    assert depthwise.std().item() == pytest.approx(1 / 24, rel=0.08)  # fan in 9 * 64
    assert pointwise.std().item() == pytest.approx(1 / 8, rel=0.02)
    # Cut at two standard deviations of the normal before the cut.
    assert pointwise.abs().max().item() <= 2 / 8 / 0.8796 + 1e-6
    assert not found['pointwise.bias'].any()


def test_normal__of_plain_heads() -> None:
    conv = build_conv(64, 64, separable=False)
    init_normal(conv)
    assert weights(conv)['weight'].std().item() == pytest.approx(0.01, rel=0.03)
    assert not weights(conv)['bias'].any()


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('swish', lambda x: x * x.sigmoid()),
        ('silu', lambda x: x * x.sigmoid()),
        ('swish_native', lambda x: x * x.sigmoid()),
        ('hswish', lambda x: x * F.relu6(x + 3) / 6),
        ('relu', F.relu),
        ('relu6', lambda x: x.clamp(0, 6)),
        ('mish', lambda x: x * F.softplus(x).tanh()),
    ],
)
def test_activation__by_the_references_names(name: str, expected: object) -> None:
    x = torch.linspace(-8, 8, 101)
    torch.testing.assert_close(build_activation(name)(x), expected(x))  # type: ignore[operator]


def test_activation__unknown() -> None:
    with pytest.raises(ValueError, match=r"act='tanhh'.*swish"):
        build_activation('tanhh')


def test_constants__the_references() -> None:
    norm = BatchNorm2d(3)
    assert (norm.eps, norm.momentum) == (1e-3, 0.01)


@pytest.mark.parametrize('momentum', [0, -0.1, 1.5])
def test_momentum__outside_0_to_1_is_refused(momentum: float) -> None:
    with pytest.raises(ConfigError, match=f'norm_momentum={momentum} '):
        BatchNorm2d(3, momentum)


def test_single_value__gives_the_shift_and_shrinks_the_variance() -> None:
    norm = BatchNorm2d(2).train()
    norm.load_state_dict({**norm.state_dict(), 'bias': torch.tensor([0.5, -1.0])})
    found = norm(torch.tensor([3.0, -7.0]).reshape(1, 2, 1, 1))
    assert found.flatten().tolist() == pytest.approx([0.5, -1.0], abs=1e-5)
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.03, -0.07]))
    torch.testing.assert_close(norm.running_var, torch.full((2,), 0.99))
    assert norm.num_batches_tracked == 1


def test_single_value__has_gradients() -> None:
    norm = BatchNorm2d(2).train()
    x = torch.randn(1, 2, 1, 1, requires_grad=True)
    norm(x).sum().backward()
    assert x.grad is not None
    assert not x.grad.any()  # the value itself does not matter
    assert norm.bias.grad is not None
    assert norm.bias.grad.tolist() == [1, 1]


def test_more_values__as_pytorch_has_it() -> None:
    own, theirs = BatchNorm2d(3), nn.BatchNorm2d(3, eps=1e-3, momentum=0.01)
    for mode in (True, False):
        x = torch.randn(2, 3, 1, 1)
        assert torch.equal(own.train(mode)(x), theirs.train(mode)(x))
    for name, value in theirs.state_dict().items():
        assert torch.equal(own.state_dict()[name], value), name
