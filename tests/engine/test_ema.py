"""The moving average: its decay, what it averages, and where it starts from."""

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from effdet_plugin.engine.ema import RampUpEMA, RampUpEMAHook
from support import load_oracle


class Vector(nn.Module):
    """Three weights and nothing else."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value.clone())


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def test_weight__first_updates_and_long_run() -> None:
    ema = RampUpEMA(small_net(), momentum=0.0002)
    decays = [1 - ema.weight_of_update(n) for n in (1, 2, 3, 4)]
    assert decays == pytest.approx([2 / 11, 3 / 12, 4 / 13, 5 / 14])
    assert ema.weight_of_update(10**6) == 0.0002


def test_update__equals_the_reference() -> None:
    oracle = load_oracle('schedules')
    values = torch.from_numpy(oracle['ema_tf1_var'])
    model = Vector(values[0])
    ema = RampUpEMA(model)
    for value, average in zip(values[1:], torch.from_numpy(oracle['ema_tf1_avg']), strict=True):
        model.value.data.copy_(value)
        ema.update_parameters(model)
        torch.testing.assert_close(ema.module.value, average, rtol=1e-6, atol=1e-6)


def test_update__averages_parameters_and_bn_statistics_and_copies_counters() -> None:
    model = small_net()
    ema = RampUpEMA(model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model(torch.randn(2, 3, 4, 4))
    with torch.no_grad():
        model[0].weight += 1
    ema.update_parameters(model)
    state = ema.module.state_dict()
    for name in ('0.weight', '1.running_mean', '1.running_var'):
        new = model.state_dict()[name]
        torch.testing.assert_close(state[name], 2 / 11 * before[name] + 9 / 11 * new)
    assert state['1.num_batches_tracked'] == 1
    assert ema.steps == 1


def test_update__without_buffers_copies_statistics() -> None:
    model = small_net()
    ema = RampUpEMA(model, update_buffers=False)
    model(torch.randn(2, 3, 4, 4))
    ema.update_parameters(model)
    torch.testing.assert_close(ema.module[1].running_mean, model[1].running_mean, rtol=0, atol=0)


def test_update__interval_skips_steps_and_counts_updates() -> None:
    model = Vector(torch.zeros(3))
    ema = RampUpEMA(model, interval=2)
    model.value.data.fill_(1.0)
    ema.update_parameters(model)
    assert ema.module.value.eq(0).all()
    ema.update_parameters(model)
    torch.testing.assert_close(ema.module.value, torch.full((3,), 9 / 11))


def test_update__is_a_few_calls() -> None:
    model = nn.Sequential(*[small_net() for _ in range(20)])
    ema = RampUpEMA(model)
    with torch.autograd.profiler.profile() as profile:
        ema.update_parameters(model)
    names = [event.name for event in profile.function_events]
    assert names.count('aten::_foreach_lerp_') == 1
    assert names.count('aten::_foreach_copy_') == 1


def test_update__a_shared_tensor_is_averaged_once() -> None:
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, nn.BatchNorm1d(2), layer)
    ema = RampUpEMA(model)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight += 1
    ema.update_parameters(model)
    for name in ('0.weight', '2.weight'):
        torch.testing.assert_close(ema.module.state_dict()[name], before + 9 / 11)


def test_state__count_travels() -> None:
    model = Vector(torch.zeros(3))
    ema = RampUpEMA(model)
    for _ in range(5):
        ema.update_parameters(model)
    other = RampUpEMA(model)
    other.load_state_dict(ema.state_dict())
    assert other.steps == 5


class _Runner:
    """What EMAHook needs of a runner."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.iter, self.epoch, self.max_iters, self.max_epochs = 0, 0, 10, 1
        self.optim_wrapper = None


def test_hook__starts_from_the_initialised_weights() -> None:
    class Model(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.zeros(3))

        def forward(self) -> None:
            """Nothing to compute."""

    runner = _Runner(Model())
    hook = RampUpEMAHook()
    hook.before_run(runner)
    runner.model.value.data.fill_(1.0)  # as init_weights or load_from does, after before_run
    hook.before_train(runner)
    runner.model.value.data.fill_(2.0)
    hook.after_train_iter(runner, 0)
    expected = torch.full((3,), 2 / 11 + 2 * 9 / 11)
    torch.testing.assert_close(hook.ema_model.module.value, expected)
