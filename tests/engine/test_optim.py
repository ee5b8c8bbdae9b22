"""Weight decay, clips, accumulation and mixed precision of the two optimiser wrappers."""

import copy

import pytest
import torch
from mmdet.registry import OPTIM_WRAPPERS
from torch import nn
from torch.optim import SGD, Optimizer

from effdet_plugin.engine.optim import (
    ClippedAmpOptimWrapper,
    ClippedOptimWrapper,
    clip_each_then_all,
)
from effdet_plugin.errors import ConfigError

WRAPPERS = [ClippedOptimWrapper, ClippedAmpOptimWrapper]
DECAY = 0.1


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))


def make_sgd(net: nn.Module, lr: float = 0.1) -> SGD:
    kernels = [p for p in net.parameters() if p.ndim > 1]
    biases = [p for p in net.parameters() if p.ndim == 1]
    groups = [{'params': kernels}, {'params': biases, 'weight_decay': 0.0}]
    return SGD(groups, lr=lr, momentum=0.9, weight_decay=DECAY)


def loss_of(net: nn.Module, seed: int = 0) -> torch.Tensor:
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(seed))
    return 100 * net(x).float().square().sum()


def by_hand(net: nn.Module, steps: int, clip_norm: float) -> nn.Module:
    """Train a copy with the decay written into the loss and the clips done by hand."""
    net = copy.deepcopy(net)
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        decay = sum(0.5 * DECAY * p.square().sum() for p in net.parameters() if p.ndim > 1)
        (loss_of(net, step) + decay).backward()
        clip_each_then_all([p.grad for p in net.parameters()], clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    return net


def assert_equal_weights(net: nn.Module, other: nn.Module, tolerance: float = 1e-6) -> None:
    for own, wanted in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(own, wanted, rtol=tolerance, atol=tolerance)


def test_update__decay_is_part_of_the_loss_and_of_the_clip() -> None:
    net = make_net()
    expected = by_hand(net, 3, 1.0)
    wrapper = ClippedOptimWrapper(make_sgd(net), clip_norm=1.0)
    for step in range(3):
        wrapper.update_params(loss_of(net, step))
    assert_equal_weights(net, expected)


def test_update__decoupled_decay_is_the_optimisers_own() -> None:
    net = make_net()
    weight, bias = (p.detach().clone() for p in net[0].parameters())
    wrapper = ClippedOptimWrapper(make_sgd(net), clip_norm=1.0, weight_decay_mode='decoupled')
    wrapper.update_params(0 * loss_of(net))
    torch.testing.assert_close(net[0].weight, weight * (1 - 0.1 * DECAY))
    torch.testing.assert_close(net[0].bias, bias)


def test_update__no_clip() -> None:
    net = make_net()
    other = copy.deepcopy(net)
    ClippedOptimWrapper(make_sgd(net), clip_norm=None).update_params(loss_of(net))
    plain = make_sgd(other)
    loss_of(other).backward()
    plain.step()
    assert_equal_weights(net, other)


def test_update__rows_of_a_group_are_clipped_separately() -> None:
    weights = nn.Parameter(torch.zeros(3))
    wrapper = ClippedOptimWrapper(SGD([{'params': [weights], 'clip_rows': True}], lr=1.0))
    wrapper.update_params((weights * torch.tensor([30.0, -4.0, 3.0])).sum())
    # 30 becomes 10 and the others stay; then all have the norm sqrt(125), which becomes 10.
    torch.testing.assert_close(weights.detach(), torch.tensor([-10.0, 4, -3]) * 10 / 125**0.5)


def test_update__accumulation_adds_the_decay_once() -> None:
    net = make_net()
    expected = by_hand(net, 1, 1.0)
    wrapper = ClippedOptimWrapper(make_sgd(net), clip_norm=1.0, accumulative_counts=2)
    for _ in range(2):
        with wrapper.optim_context(net):
            loss = loss_of(net)
        wrapper.update_params(loss)
    assert_equal_weights(net, expected)


def test_amp__bfloat16_on_cpu_follows_float32() -> None:
    net = make_net()
    expected = by_hand(net, 2, 1.0)
    wrapper = ClippedAmpOptimWrapper(make_sgd(net), clip_norm=1.0)
    for step in range(2):
        with wrapper.optim_context(net):
            assert net(torch.randn(1, 6)).dtype is torch.bfloat16
            loss = loss_of(net, step)
        wrapper.update_params(loss)
    assert_equal_weights(net, expected, 2e-2)
    assert not torch.equal(net[0].weight, expected[0].weight)


def test_amp__depthwise_convolutions_stay_float32_on_cpus() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))
    wrapper = ClippedAmpOptimWrapper(torch.optim.SGD(net.parameters(), lr=0.1))
    dtypes: list[torch.dtype] = []
    for layer in net:
        layer.register_forward_hook(lambda _module, _inputs, x: dtypes.append(x.dtype))
    for _ in range(2):
        with wrapper.optim_context(net):
            net(torch.randn(2, 3, 6, 6))
    assert dtypes == [torch.bfloat16, torch.float32, torch.bfloat16] * 2
    copied = copy.deepcopy(net)
    copied[1].weight.data.zero_()
    assert net(torch.randn(1, 3, 6, 6)).dtype is torch.float32  # outside of the context
    assert net[1].weight.abs().sum() > 0
    assert copied[1](torch.ones(1, 8, 3, 3)).flatten().tolist() == copied[1].bias.tolist()


def test_amp__clips_unscaled_gradients() -> None:
    """A scaler that is in force must not reach the clip: as with float16 on a GPU."""
    net = make_net()
    expected = by_hand(net, 1, 1.0)
    wrapper = ClippedAmpOptimWrapper(make_sgd(net), clip_norm=1.0)
    wrapper.loss_scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)
    wrapper.update_params(loss_of(net))
    assert_equal_weights(net, expected, 1e-5)


@pytest.mark.parametrize('mode', ['loss', 'decoupled'])
@pytest.mark.parametrize('wrapper_type', WRAPPERS)
def test_state__decay_survives_a_change_of_mode(
    wrapper_type: type[ClippedOptimWrapper], mode: str
) -> None:
    net = make_net()
    wrapper = wrapper_type(make_sgd(net), weight_decay_mode='loss')
    wrapper.update_params(loss_of(net))
    resumed = wrapper_type(make_sgd(net), weight_decay_mode=mode)
    resumed.load_state_dict(copy.deepcopy(wrapper.state_dict()))
    decays = [(g['weight_decay'], g.get('loss_decay', 0)) for g in resumed.optimizer.param_groups]
    assert decays == ([(0, DECAY), (0, 0)] if mode == 'loss' else [(DECAY, 0), (0, 0)])


def test_state__a_run_is_resumed_in_mixed_precision() -> None:
    net = make_net()
    plain = ClippedOptimWrapper(make_sgd(net))
    plain.update_params(loss_of(net))
    mixed = ClippedAmpOptimWrapper(make_sgd(net))
    mixed.load_state_dict(plain.state_dict())
    plain.load_state_dict(mixed.state_dict())
    momenta = [s['momentum_buffer'] for s in plain.optimizer.state.values()]
    assert len(momenta) == 4
    assert all(bool(m.any()) for m in momenta)


def test_step__calls_do_not_grow_with_the_number_of_tensors() -> None:
    net = nn.Sequential(*[nn.Linear(4, 4) for _ in range(20)])
    wrapper = ClippedOptimWrapper(make_sgd(net))
    net(torch.randn(2, 4)).sum().backward()
    with torch.autograd.profiler.profile() as profile:
        wrapper.step()
    names = [event.name for event in profile.function_events]
    assert names.count('aten::_foreach_norm') == 1
    assert not [n for n in names if n in ('aten::item', 'aten::_local_scalar_dense')]


@pytest.mark.parametrize('wrapper', [t.__name__ for t in WRAPPERS])
def test_registry__builds_with_the_same_arguments(wrapper: str) -> None:
    """What ``--amp`` does: another type, everything else as it was."""
    built = OPTIM_WRAPPERS.build(
        {'type': wrapper, 'optimizer': make_sgd(make_net()), 'clip_norm': 5.0}
    )
    assert built.clip_norm == 5.0
    assert built.weight_decay_mode == 'loss'


@pytest.mark.parametrize(
    'arguments', [{'clip_norm': 0}, {'weight_decay_mode': 'l2'}, {'dtype': 'float16'}]
)
def test_init__refuses_what_cannot_be(arguments: dict[str, object]) -> None:
    optimizer: Optimizer = make_sgd(make_net())
    with pytest.raises(ConfigError):
        ClippedAmpOptimWrapper(optimizer, **arguments)


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
