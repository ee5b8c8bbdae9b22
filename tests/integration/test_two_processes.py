"""N processes train like one, if the losses are divided by the positives of all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

SCRIPT = Path(__file__).parent / 'one_gradient.py'


def gradients(processes: int, normalizer: str, folder: Path) -> dict[str, Tensor]:
    out = folder / f'{normalizer}_{processes}.pt'
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone']
    command += [f'--nproc-per-node={processes}', str(SCRIPT), normalizer, str(out)]
    subprocess.run(command, check=True, env={**os.environ, 'OMP_NUM_THREADS': '1'}, timeout=300)
    return torch.load(out, weights_only=True)


def worst_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest difference relative to the largest gradient of its tensor's network."""
    scale = max(float(x.abs().max()) for x in a.values())
    return max(float((a[key] - b[key]).abs().max()) for key in a) / scale


@pytest.mark.dist
def test_global_normalizer__two_processes_give_the_gradient_of_one(tmp_path: Path) -> None:
    one, two = (gradients(n, 'global', tmp_path) for n in (1, 2))
    assert worst_difference(one, two) < 1e-5


@pytest.mark.dist
def test_local_normalizer__two_processes_do_not(tmp_path: Path) -> None:
    """The reference's: each process divides by its own positives, so images weigh differently."""
    one, two = (gradients(n, 'local', tmp_path) for n in (1, 2))
    assert worst_difference(one, two) > 1e-2
