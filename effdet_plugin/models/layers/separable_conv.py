"""Separable and plain 3x3 convolutions of neck and head, with the reference's initial values."""

import math

import torch
from torch import Tensor, nn


class SeparableConv2d(nn.Module):
    """Depthwise 3x3 without bias, then pointwise 1x1; stride 1, SAME.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        bias: of the pointwise convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_channels, H, W)`` -> ``(B, out_channels, H, W)``."""
        return self.pointwise(self.depthwise(x))


def build_conv(
    in_channels: int, out_channels: int, separable: bool, bias: bool = True
) -> nn.Module:
    """A 3x3 SAME convolution, separable or plain."""
    if separable:
        return SeparableConv2d(in_channels, out_channels, bias=bias)
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)


def tensorflow_fans(weight: Tensor, depthwise: bool) -> tuple[int, int]:
    """Fan in and out as Keras counts them: a depthwise kernel ``(k, k, C, 1)`` has k k C and k k.

    Args:
        weight: PyTorch kernel, ``(out, in / groups, k, k)``.
        depthwise: whether its groups are its channels.
    """
    area = weight.shape[2] * weight.shape[3]
    if depthwise:
        return area * weight.shape[0], area
    return area * weight.shape[1], area * weight.shape[0]


def init_glorot_uniform(module: nn.Module) -> None:
    """Keras' default for every convolution of ``module``: the BiFPN's; biases 0."""
    for conv in _convs(module):
        fan_in, fan_out = tensorflow_fans(conv.weight, conv.groups > 1)
        limit = math.sqrt(6 / (fan_in + fan_out))
        nn.init.uniform_(conv.weight, -limit, limit)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)


def init_fan_in_normal(module: nn.Module) -> None:
    """Variance scaling 1.0 over fan in, normal truncated at two standard deviations: the heads'."""
    for conv in _convs(module):
        fan_in, _ = tensorflow_fans(conv.weight, conv.groups > 1)
        # 0.8796...: standard deviation of a unit normal truncated at +-2 (Keras' VarianceScaling).
        std = math.sqrt(1 / fan_in) / 0.87962566103423978
        nn.init.trunc_normal_(conv.weight, 0.0, std, -2 * std, 2 * std)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)


def init_normal(module: nn.Module, std: float = 0.01) -> None:
    """Normal(0, std) kernels and zero biases: the reference's plain (not separable) heads."""
    for conv in _convs(module):
        with torch.no_grad():
            conv.weight.normal_(0.0, std)
            if conv.bias is not None:
                conv.bias.zero_()


def _convs(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]
