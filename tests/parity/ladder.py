"""What the rungs share: the reference's layouts, and a comparison that overlooks nothing."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

import support

Arrays = Mapping[str, np.ndarray]


def swap(boxes: Tensor) -> Tensor:
    """``(..., 4)`` y first (the reference) to x first (ours), corners or codes; its own inverse."""
    return boxes[..., [1, 0, 3, 2]]


def nhwc(feature_map: Tensor) -> Tensor:
    return feature_map.permute(0, 2, 3, 1)


def nchw(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()


def swap_channels(feature_map: Tensor) -> Tensor:
    """Box codes of a map ``(B, A * 4, H, W)``, y first to x first; its own inverse."""
    return swap(feature_map.unflatten(1, (-1, 4)).movedim(2, -1)).movedim(-1, 2).flatten(1, 2)


def difference(arrays: Arrays, name: str, value: Tensor) -> float:
    """Largest difference from a stored tensor over its largest entry.

    Big tensors are stored as samples: those are compared, and mean, standard deviation and largest
    entry of the whole, so that no part may be wrong.

    Args:
        arrays: A file of the oracle.
        name: Of the tensor in it.
        value: Ours, in the layout of the file.
    """
    found = support.oracle_io().compare(arrays, name, value.detach().numpy())
    assert found['ok_shape'], (name, found)
    scale = value.detach().abs().max().item() if value.numel() else 0.0
    of_whole = max(found.get('stats_diff', [0.0]))
    return max(found['rel_to_absmax'], of_whole / (scale + 1e-12))


def worst(differences: Sequence[tuple[str, float]]) -> tuple[str, float]:
    """Name and value of the largest difference, for the message of a failing test."""
    return max(differences, key=lambda item: item[1])
