"""Weighted fusion of feature maps of equal shape (EfficientDet, CVPR 2020, section 3.3).

Source: ``FNode`` in google/automl efficientdet/tf2/efficientdet_keras.py.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from effdet_plugin.errors import ConfigError

METHODS = ('fast_attn', 'attn', 'sum', 'channel_fast_attn', 'channel_attn')
# Added to the sum of the weights in the fast form: the paper's epsilon.
EPSILON = 1e-4


class Fusion(nn.Module):
    """Fuse n maps into one.

    * ``fast_attn``: ``w_i = relu(v_i) / (sum_j relu(v_j) + 1e-4)``
    * ``attn``: ``w = softmax(v)``
    * ``channel_fast_attn``, ``channel_attn``: the same with one ``v`` per channel
    * ``sum``: no weights (D6, D7, D7x, Lite)

    Args:
        num_inputs: number of maps.
        method: one of the above.
        channels: of the maps; needed by the channel forms only.

    Raises:
        ConfigError: unknown method.
    """

    def __init__(self, num_inputs: int, method: str = 'fast_attn', channels: int = 1) -> None:
        super().__init__()
        if method not in METHODS:
            raise ConfigError(
                f'fusion={method!r} is not a fusion; choose one of {", ".join(METHODS)}, '
                f"or write a module and name it by dict(type='YourClass')"
            )
        self.method = method
        self.weights: nn.Parameter | None
        if method == 'sum':
            self.register_parameter('weights', None)
        elif method.startswith('channel'):
            self.weights = nn.Parameter(torch.ones(num_inputs, channels))
        else:
            self.weights = nn.Parameter(torch.ones(num_inputs))

    def normalized_weights(self) -> Tensor | None:
        """Weights that the maps are multiplied with, ``(n,)`` or ``(n, C)``; None for ``sum``."""
        if self.weights is None:
            return None
        # In float32 under autocast, too: half precision would lose the epsilon.
        weights = self.weights.float()
        if self.method.endswith('fast_attn'):
            weights = F.relu(weights)
            return weights / (weights.sum(0, keepdim=True) + EPSILON)
        return torch.softmax(weights, dim=0)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """n maps ``(B, C, H, W)`` -> one of the same shape."""
        weights = self.normalized_weights()
        if weights is None:
            terms = list(inputs)
        else:
            scales = weights.to(inputs[0].dtype).reshape(len(inputs), -1, 1, 1)
            terms = [x * scale for x, scale in zip(inputs, scales, strict=True)]
        # A sum of scaled terms, not a stack, which would copy all maps; it also exports and
        # quantises best. The order of the terms fixes the rounding.
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def extra_repr(self) -> str:
        """Show the method in ``repr``."""
        return f'method={self.method!r}'


def build_fusion(fusion: str | dict[str, Any], num_inputs: int, channels: int) -> nn.Module:
    """Build a fusion by its name, or one of your own by its config.

    Args:
        fusion: a name of :data:`METHODS`, or the config of a module registered in mmdet's
            ``MODELS``. Its constructor takes ``num_inputs`` and ``channels``; its forward makes one
            map of a list of ``num_inputs`` maps ``(B, channels, H, W)``.
        num_inputs: number of maps.
        channels: of the maps.
    """
    if isinstance(fusion, str):
        return Fusion(num_inputs, fusion, channels)
    return MODELS.build({**fusion, 'num_inputs': num_inputs, 'channels': channels})
