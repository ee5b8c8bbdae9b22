"""Activation checkpointing that updates BN statistics once, though the forward pass runs twice."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


@contextmanager
def _still_statistics(module: nn.Module) -> Iterator[None]:
    """Keep running statistics and counters of every BN of ``module`` while it runs again."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.training and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(1)


def checkpoint_module(module: nn.Module, *args: Any) -> Any:
    """``module(*args)`` with its activations recomputed in backward instead of stored.

    Drop-connect draws the same numbers both times, and BN statistics move once.
    """
    return checkpoint(
        module,
        *args,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _still_statistics(module)),
    )
