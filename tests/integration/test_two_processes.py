"""N processes train like one, if the losses are divided by the positives of all."""

from pathlib import Path

import one_gradient
import pytest
import torch
from forked import in_processes
from torch import Tensor


def gradients(processes: int, normalizer: str, folder: Path) -> dict[str, Tensor]:
    """Those of a batch split over some processes."""
    out = folder / f'{normalizer}_{processes}.pt'
    assert in_processes(processes, one_gradient.main, normalizer, str(out)) == [0] * processes
    return torch.load(out, weights_only=True)


def worst_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest difference relative to the largest gradient of its tensor's network."""
    scale = max(float(x.abs().max()) for x in a.values())
    return max(float((a[key] - b[key]).abs().max()) for key in a) / scale


@pytest.mark.dist
@pytest.mark.timeout(600)
def test_global_normalizer__two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    one, two = (gradients(n, 'global', tmp_path) for n in (1, 2))
    assert worst_difference(one, two) < 1e-5


@pytest.mark.dist
def test_local_normalizer__two_processes_do_not(tmp_path: Path) -> None:
    """The reference's: each process divides by its own positives, so images weigh differently."""
    one, two = (gradients(n, 'local', tmp_path) for n in (1, 2))
    assert worst_difference(one, two) > 1e-2
