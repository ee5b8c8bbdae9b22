"""The two clips against plain arithmetic."""

import pytest
import torch

from effdet_plugin.engine.clipping import clip_each_then_all


def reference(grads: list[torch.Tensor], max_norm: float) -> list[torch.Tensor]:
    each = [g * (max_norm / max(float(g.norm()), max_norm)) for g in grads]
    total = float(torch.stack([g.norm() for g in each]).norm())
    return [g * (max_norm / max(total, max_norm)) for g in each]


def make_grads(scales: list[float]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (5,), (2, 3, 1, 1)]
    return [s * torch.randn(n, generator=generator) for s, n in zip(scales, shapes, strict=True)]


@pytest.mark.parametrize(
    'scales', [[100.0, 1.0, 0.1], [3.0, 3.0, 3.0], [50.0, 60.0, 70.0], [0.1, 0.1, 0.0]]
)
def test_clip__equals_two_separate_clips(scales: list[float]) -> None:
    grads = make_grads(scales)
    expected = reference(grads, 10.0)
    before = float(torch.cat([g.flatten() for g in grads]).norm())
    norm = clip_each_then_all(grads, 10.0)
    for grad, wanted in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, wanted)
    assert float(norm) == pytest.approx(before)


def test_clip__is_not_the_global_clip_alone() -> None:
    grads = [torch.tensor([1000.0]), torch.tensor([5.0])]
    clip_each_then_all(grads, 10.0)
    # 10 and 5 after the first clip: a global clip alone would leave 0.05 of the 5.
    assert grads[1].item() == pytest.approx(50 / 125**0.5)


def test_clip__no_gradients() -> None:
    assert clip_each_then_all([], 10.0) == 0


def test_clip__nan_shows_everywhere() -> None:
    grads = [torch.tensor([float('nan')]), torch.tensor([5.0])]
    clip_each_then_all(grads, 10.0)
    assert all(bool(g.isnan().all()) for g in grads)
