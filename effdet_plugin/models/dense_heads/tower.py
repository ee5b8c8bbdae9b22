"""The tower of a head: convolutions shared by all levels, one BN per level and repeat.

Source: ``ClassNet`` and ``BoxNet`` in google/automl efficientdet/tf2/efficientdet_keras.py (the
reference), which are this one module with different outputs; ``drop_connect`` in its utils.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from effdet_plugin.models.layers.conv import (
    NORM_MOMENTUM,
    BatchNorm2d,
    build_activation,
    build_conv,
    init_fan_in_normal,
    init_normal,
)
from effdet_plugin.models.layers.norm_act import norm_act


class Tower(nn.Module):
    """``num_convs`` times convolution, BN of the level, activation; then a last convolution.

    Args:
        in_channels: channels of the pyramid.
        feat_channels: channels of the repeats.
        out_channels: channels of the last convolution, which predicts.
        num_convs: number of repeats.
        num_levels: number of levels, each with its own BN.
        separable: separable or plain 3x3 convolutions.
        act: name of the activation.
        survival_prob: None, or the probability that a repeat after the first keeps its branch in
            training (drop-connect). Whenever it is set, those repeats have a skip connection, also
            at test time.
        norm_momentum: momentum of every BN.
    """

    def __init__(
        self,
        in_channels: int,
        feat_channels: int,
        out_channels: int,
        num_convs: int,
        num_levels: int,
        separable: bool = True,
        act: str = 'swish',
        survival_prob: float | None = None,
        norm_momentum: float = NORM_MOMENTUM,
    ) -> None:
        super().__init__()
        channels = [in_channels] + [feat_channels] * num_convs
        # The convolutions are shared by all levels. BN is not: the statistics of the levels differ.
        self.convs = nn.ModuleList(
            build_conv(channels[i], channels[i + 1], separable) for i in range(num_convs)
        )
        self.norms = nn.ModuleList(
            nn.ModuleList(BatchNorm2d(feat_channels, norm_momentum) for _ in range(num_levels))
            for _ in range(num_convs)
        )
        self.act = build_activation(act)
        self.predict = build_conv(channels[-1], out_channels, separable)
        self.survival_prob = survival_prob
        (init_fan_in_normal if separable else init_normal)(self)

    def forward(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """Level maps ``(B, in_channels, h, w)`` -> predictions ``(B, out_channels, h, w)``."""
        return [self.predict(self.features(x, level)) for level, x in enumerate(feats)]

    def features(self, x: Tensor, level: int) -> Tensor:
        """Map ``(B, feat_channels, h, w)`` of one level after all repeats, without prediction."""
        for repeat, (conv, norms) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm_act(norms[level], self.act, conv(x))  # type: ignore[index]
            skip = self.survival_prob is not None and repeat > 0
            x = drop_connect(y, self.survival_prob, self.training) + x if skip else y  # type: ignore[arg-type]
        return x


def drop_connect(x: Tensor, survival_prob: float, training: bool) -> Tensor:
    """Drop samples of ``(B, ...)`` with probability ``1 - survival_prob``, scale up the rest."""
    if not training:
        return x
    # One draw per sample: floor(p + U[0, 1)) is 1 with probability p.
    keep = torch.rand((x.shape[0],) + (1,) * (x.dim() - 1), device=x.device, dtype=x.dtype)
    return x / survival_prob * torch.floor(keep + survival_prob)
