"""Bring a map of another level to a node's channels and size.

Source: ``ResampleFeatureMap`` in google/automl efficientdet/tf2/efficientdet_keras.py (the
reference).
"""

from torch import Tensor, nn

from effdet_plugin.errors import ConfigError
from effdet_plugin.models.layers.conv import NORM_MOMENTUM, BatchNorm2d
from effdet_plugin.ops.resample import POOLS, pool_to_size, resample_nearest


class Resample(nn.Module):
    """1x1 convolution and BN where the channels differ, then pooling or nearest upsampling.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output; a convolution exists only if they differ.
        apply_bn: BN after the convolution.
        conv_after_downsample: convolve after pooling instead of before.
        pool_type: ``'max'``, ``'max_zero'``, which pads with zeros as weights of other ports need
            it, or ``'avg'``, which does not count padding.
        norm_momentum: momentum of BN.

    Raises:
        ConfigError: unknown ``pool_type``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        apply_bn: bool = True,
        conv_after_downsample: bool = False,
        pool_type: str = 'max',
        norm_momentum: float = NORM_MOMENTUM,
    ) -> None:
        super().__init__()
        if pool_type not in POOLS:
            raise ConfigError(
                f'pool_type={pool_type!r} is not a pooling; choose one of {", ".join(POOLS)}'
            )
        has_conv = in_channels != out_channels
        # With a bias, though BN follows: it is in every checkpoint of the reference.
        self.conv = nn.Conv2d(in_channels, out_channels, 1) if has_conv else None
        self.bn = BatchNorm2d(out_channels, norm_momentum) if has_conv and apply_bn else None
        self.conv_after_downsample = conv_after_downsample
        self.pool_type = pool_type

    def match_channels(self, x: Tensor) -> Tensor:
        """The convolution and BN alone, where they exist; no activation."""
        if self.conv is not None:
            x = self.conv(x)
        return x if self.bn is None else self.bn(x)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """``(B, in_channels, h, w)`` -> ``(B, out_channels, *size)``.

        Raises:
            ConfigError: one axis shrinks while the other does not (an error in the reference, too).
                This happens for very thin images, whose coarsest maps have a width or height of 1.
        """
        height, width = x.shape[-2:]
        if height > size[0] and width > size[1]:
            if self.conv_after_downsample:
                return self.match_channels(pool_to_size(x, size, self.pool_type))
            return pool_to_size(self.match_channels(x), size, self.pool_type)
        if height <= size[0] and width <= size[1]:
            # The convolution comes first: it runs on the smaller map.
            return resample_nearest(self.match_channels(x), size)
        raise ConfigError(
            f'cannot resample a {height}x{width} map to {size[0]}x{size[1]}: one axis '
            'shrinks, the other does not; the image is too thin for this many levels: '
            'make its short side larger'
        )
