from pathlib import Path

import torch
from torch import nn

from effdet_plugin.ablation import measure_configs, measure_latency
from support import REPOSITORY


class Sleeper(nn.Module):
    """Notes who was called, and in which mode."""

    def __init__(self, name: str, calls: list[str]) -> None:
        super().__init__()
        self.name, self.calls = name, calls

    def forward(self, image: torch.Tensor, mode: str) -> torch.Tensor:
        assert mode == 'tensor'
        assert not self.training
        self.calls.append(f'{self.name} {tuple(image.shape[-2:])}')
        return image


def test_measure__takes_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    models = {name: Sleeper(name, calls) for name in 'ab'}
    times = measure_latency(models, {'a': (4, 6), 'b': (8, 8)}, rounds=2)
    assert calls == ['a (4, 6)', 'b (8, 8)'] * 3
    assert times['a'].median_ms > 0
    assert times['b'].spread_ms >= 0


def test_measure_configs__says_how() -> None:
    path: Path = REPOSITORY / 'configs' / 'ablation' / 'table6_fast.py'
    note, times = measure_configs([path], rounds=1, device='cpu', image_size='160x128')
    assert '160x128' in note
    assert list(times) == ['table6_fast']
