"""Activation checkpointing that updates BN statistics once, though the forward pass runs twice."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from effdet_plugin.models.layers.norm_act import plain_norms


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Keep running statistics and counters of every BN of ``module`` while it runs again."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        # Not eval mode: the second pass has to normalise with the statistics of the batch, too.
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            # The second pass has counted the same batch again.
            if norm.training and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(1)


def checkpoint_activations(module: nn.Module, *args: Any) -> Any:
    """``module(*args)`` with its activations recomputed in backward instead of stored.

    Drop-connect draws the same numbers both times, and BN statistics are updated once.
    """
    return checkpoint(
        module,
        *args,
        use_reentrant=False,  # the reentrant variant ignores context_fn
        # Both passes have to keep the same tensors; norms need not be recomputed on their own here.
        context_fn=lambda: (plain_norms(), _frozen_statistics(module)),
    )
