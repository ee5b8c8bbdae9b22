"""What the losses are divided by."""

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor

from effdet_plugin.errors import ConfigError

NORMALIZERS = ('local', 'mean', 'global', 'constant')


def loss_normalizer(kind: str, num_positives: Tensor, value: float = 100.0) -> Tensor:
    """Divisor of the losses of one process, without a host synchronisation.

    Args:
        kind: ``'local'``: positives + 1 (the reference); ``'mean'``: their mean over processes + 1;
            ``'global'``: (their sum over processes + 1) / processes, the only one with which N
            processes give the gradient of one process with the whole batch; ``'constant'``:
            ``value``.
        num_positives: scalar float, matched anchors of this process.
        value: of ``'constant'``.

    Raises:
        ConfigError: unknown kind.
    """
    if kind not in NORMALIZERS:
        raise ConfigError(
            f'loss_normalizer={kind!r} is unknown; choose one of {", ".join(NORMALIZERS)}'
        )
    if kind == 'constant':
        return torch.full_like(num_positives, value)
    if kind == 'local':
        return num_positives + 1
    total, world = num_positives.clone(), get_world_size()
    all_reduce(total)
    return (total + 1) / world if kind == 'global' else total / world + 1
