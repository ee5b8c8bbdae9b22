"""Convolutions, batch norm and activations of neck and head, with EfficientDet's initial values.

Source (the reference): google/automl efficientdet/tf2/efficientdet_keras.py for layers and
initialisers, efficientdet/utils.py for activations and batch norm.
"""

import math
from collections.abc import Iterator

from torch import Tensor, nn

from effdet_plugin.errors import ConfigError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    'swish': nn.SiLU,
    'silu': nn.SiLU,
    'swish_native': nn.SiLU,
    'hswish': nn.Hardswish,
    'relu': nn.ReLU,
    'relu6': nn.ReLU6,
    'mish': nn.Mish,
}
NORM_EPS = 1e-3
NORM_MOMENTUM = 0.01  # TensorFlow's 0.99 is the share of the old value, PyTorch's of the new one
# Standard deviation of a unit normal truncated at +-2, by which Keras' VarianceScaling divides.
TRUNCATED_STD = 0.87962566103423978


def build_activation(name: str) -> nn.Module:
    """Activation by the reference's name.

    Args:
        name: one of swish, silu, swish_native, hswish, relu, relu6, mish.

    Raises:
        ConfigError: unknown name.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(
            f'act={name!r} is not an activation; choose one of {", ".join(ACTIVATIONS)}'
        )
    return ACTIVATIONS[name]()


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm with epsilon 1e-3 that also takes a single value per channel.

    A 1x1 map of a batch of one has no variance: PyTorch raises there, the reference outputs the
    shift and updates its statistics (with the value itself and a variance of 0), as this does.

    Args:
        num_features: channels.
        norm_momentum: weight of a new batch in the running statistics, in (0, 1].

    Raises:
        ConfigError: ``norm_momentum`` outside (0, 1].
    """

    def __init__(self, num_features: int, norm_momentum: float = NORM_MOMENTUM) -> None:
        check_momentum(norm_momentum)
        super().__init__(num_features, eps=NORM_EPS, momentum=norm_momentum)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same shape."""
        if self.training and x.numel() == x.shape[1]:
            # A batch of two equal values has the same mean and a variance of 0.
            return super().forward(x.repeat(2, 1, 1, 1))[:1]
        return super().forward(x)


def check_momentum(momentum: float) -> None:
    """Check the momentum of batch norm statistics.

    Raises:
        ConfigError: outside (0, 1].
    """
    if not 0 < momentum <= 1:
        raise ConfigError(
            f'norm_momentum={momentum} must be in (0, 1]; 0.01 for long trainings, 0.1 for short'
        )


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
    """A 3x3 convolution with stride 1 and SAME padding, separable or plain."""
    if separable:
        return SeparableConv2d(in_channels, out_channels, bias=bias)
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)


def init_glorot_uniform(module: nn.Module) -> None:
    """Initialise with Glorot uniform (Keras' default), as in the reference's BiFPN."""
    for conv in _convs_with_zero_bias(module):
        fan_in, fan_out = _keras_fans(conv)
        limit = math.sqrt(6 / (fan_in + fan_out))
        nn.init.uniform_(conv.weight, -limit, limit)


def init_fan_in_normal(module: nn.Module) -> None:
    """Initialise with truncated normal of variance 1 / fan in, as in the separable heads."""
    for conv in _convs_with_zero_bias(module):
        std = math.sqrt(1 / _keras_fans(conv)[0]) / TRUNCATED_STD
        nn.init.trunc_normal_(conv.weight, 0.0, std, -2 * std, 2 * std)


def init_normal(module: nn.Module) -> None:
    """Initialise with normal(0, 0.01), as in the plain (not separable) heads."""
    for conv in _convs_with_zero_bias(module):
        nn.init.normal_(conv.weight, 0.0, 0.01)


def _convs_with_zero_bias(module: nn.Module) -> Iterator[nn.Conv2d]:
    """Convolutions of a module, their biases set to 0."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            yield conv


def _keras_fans(conv: nn.Conv2d) -> tuple[int, int]:
    """Fan in and fan out as Keras counts them."""
    out_channels, group_channels, height, width = conv.weight.shape
    area = height * width
    if conv.groups > 1:
        # Keras' depthwise kernel is (k, k, C, 1): it counts C inputs and one output, where PyTorch
        # counts one input for each of C outputs.
        return area * out_channels, area
    return area * group_channels, area * out_channels
