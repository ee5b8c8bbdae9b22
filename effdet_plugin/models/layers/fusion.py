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
        return None if self.weights is None else _normalized(self.weights, self.method, 0)

    def forward(self, inputs: Sequence[Tensor], scales: Sequence[Tensor] = ()) -> Tensor:
        """Fuse the maps.

        Args:
            inputs: n maps ``(B, C, H, W)``.
            scales: those of :func:`fusion_scales`, where it has computed them.

        Returns:
            One map of the same shape.
        """
        weights = None if scales else self.normalized_weights()
        if weights is not None:
            scales = _scales(weights, inputs[0].dtype)
        terms = list(inputs)
        if scales:
            terms = [x * _of(scale, x.dtype) for x, scale in zip(inputs, scales, strict=True)]
        # A sum of scaled terms, not a stack, which would copy all maps; it also exports and
        # quantises best. The order of the terms fixes the rounding.
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def extra_repr(self) -> str:
        """Show the method in ``repr``."""
        return f'method={self.method!r}'


def fusion_scales(fusions: Sequence[nn.Module], dtype: torch.dtype) -> list[Sequence[Tensor]]:
    """What each fusion multiplies its maps with, computed for all alike at once.

    A network has dozens of fusions of two or three numbers: one after the other these take more
    operators, and on a GPU more launches, than the maps themselves.

    Args:
        fusions: any modules.
        dtype: of the maps.

    Returns:
        For each fusion, n scalars or n tensors ``(C, 1, 1)``; empty where it has no weights, or is
        not just a :class:`Fusion`: a subclass may weight in another way.
    """
    alike: dict[tuple[str, torch.Size], list[int]] = {}
    for number, fusion in enumerate(fusions):
        if type(fusion) is Fusion and fusion.weights is not None:
            alike.setdefault((fusion.method, fusion.weights.shape), []).append(number)
    scales: list[Sequence[Tensor]] = [()] * len(fusions)
    for (method, shape), numbers in alike.items():
        weights = torch.stack([fusions[number].weights for number in numbers])  # type: ignore[misc]
        flat = _scales(_normalized(weights, method, 1).flatten(0, 1), dtype)
        for place, number in enumerate(numbers):
            scales[number] = flat[place * shape[0] : (place + 1) * shape[0]]
    return scales


def _scales(weights: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Factors of k maps from normalised weights ``(k,)`` or ``(k, C)``."""
    weights = weights.to(dtype)
    # Scalars have no dimensions: their gradient needs no reshaping.
    return (weights if weights.dim() == 1 else weights[..., None, None]).unbind()


def _of(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """A scale in the dtype of its map, which it must not raise."""
    return scale if scale.dtype == dtype else scale.to(dtype)


def _normalized(weights: Tensor, method: str, dim: int) -> Tensor:
    """Weights of the same shape, normalised over the inputs, which are dimension ``dim``."""
    # In float32 under autocast, too: half precision would lose the epsilon.
    weights = weights.float()
    if method.endswith('fast_attn'):
        weights = F.relu(weights)
        return weights / (weights.sum(dim, keepdim=True) + EPSILON)
    return torch.softmax(weights, dim)


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
