import pytest
import torch
from torch import nn

from effdet_plugin.models.dense_heads.tower import Tower, drop_connect

LEVELS = 3


def feats(channels: int = 8) -> list[torch.Tensor]:
    return [torch.randn(2, channels, s, s) for s in (8, 4, 2)]


@pytest.mark.parametrize('separable', [True, False])
def test_tower__convolutions_shared_and_a_bn_for_each_level(separable: bool) -> None:
    tower = Tower(8, 8, 5, num_convs=2, num_levels=LEVELS, separable=separable)
    norms = [m for m in tower.modules() if isinstance(m, nn.BatchNorm2d)]
    convs = [m for m in tower.modules() if isinstance(m, nn.Conv2d)]
    assert len(norms) == 2 * LEVELS
    assert len(convs) == (2 + 1) * (2 if separable else 1)
    outputs = tower(feats())
    assert [tuple(x.shape) for x in outputs] == [(2, 5, 8, 8), (2, 5, 4, 4), (2, 5, 2, 2)]
    outputs[0].sum().backward()  # of one level: all convolutions, only its own BN
    assert all(p.grad is not None for conv in convs for p in conv.parameters())
    assert [norm.weight.grad is not None for norm in norms] == [True, False, False] * 2


def test_tower__statistics_of_each_level_are_its_own() -> None:
    tower = Tower(8, 8, 5, num_convs=1, num_levels=2)
    tower.train()([torch.zeros(1, 8, 4, 4), 100 * torch.randn(1, 8, 4, 4)])
    first, second = (tower.norms[0][level].running_var for level in range(2))  # type: ignore[index]
    assert (first < 1).all()
    assert (second > first).all()


def test_tower__parameters_of_d0() -> None:
    def count(tower: Tower) -> int:
        return sum(p.numel() for p in tower.parameters())

    assert count(Tower(64, 64, 9 * 90, num_convs=3, num_levels=5)) == 69_354
    assert count(Tower(64, 64, 9 * 4, num_convs=3, num_levels=5)) == 19_044


def test_initial_values__of_the_reference() -> None:
    separable = Tower(64, 64, 810, num_convs=3, num_levels=5)
    kernels = [
        p.detach() for n, p in separable.named_parameters() if n.endswith('depthwise.weight')
    ]
    assert torch.cat(kernels).std().item() == pytest.approx(0.0417, rel=0.05)
    pointwise = separable.state_dict()['predict.pointwise.weight']
    assert pointwise.std().item() == pytest.approx(1 / 8, rel=0.02)
    plain = Tower(16, 16, 8, num_convs=1, num_levels=1, separable=False)
    assert plain.state_dict()['predict.weight'].std().item() == pytest.approx(0.01, rel=0.1)


def test_survival_prob__skips_also_when_testing() -> None:
    plain = Tower(8, 8, 5, num_convs=3, num_levels=1).eval()
    skipping = Tower(8, 8, 5, num_convs=3, num_levels=1, survival_prob=1.0).eval()
    skipping.load_state_dict(plain.state_dict())
    x = torch.randn(1, 8, 4, 4)
    y = x
    for repeat in range(3):
        step = plain.act(plain.norms[repeat][0](plain.convs[repeat](y)))  # type: ignore[index]
        y = step if repeat == 0 else step + y
    torch.testing.assert_close(skipping.features(x, 0), y)
    assert not torch.allclose(plain.features(x, 0), y)


def test_drop_connect__whole_samples_and_the_mean_stays() -> None:
    x = torch.ones(4000, 2, 1, 1)
    found = drop_connect(x, 0.8, training=True)
    assert torch.equal(found[:, 0], found[:, 1])
    assert set(found.unique().tolist()) == {0.0, 1.25}
    assert found.mean().item() == pytest.approx(1, abs=0.03)
    assert drop_connect(x, 0.8, training=False) is x
