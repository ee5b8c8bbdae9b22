"""The learning rate against the reference's, through mmengine, and after a resume."""

from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import PARAM_SCHEDULERS
from mmengine.optim import CosineAnnealingLR
from torch import nn
from torch.optim import SGD

from effdet_plugin.engine import schedule
from effdet_plugin.engine.checkpoint import to_weights_only
from effdet_plugin.engine.optim import ClippedOptimWrapper
from effdet_plugin.engine.schedule import ReferenceLR, lr_factor
from effdet_plugin.errors import ConfigError
from support import load_oracle

EXAMPLES = 120_000


def make_sgd(lr: float = 0.16) -> SGD:
    layer = nn.Linear(2, 2)
    return SGD([{'params': [layer.weight]}, {'params': [layer.bias], 'lr': lr / 10}], lr=lr)


def factors_of(scheduler: ReferenceLR, steps: np.ndarray) -> np.ndarray:
    return np.array([lr_factor(int(step), **scheduler.settings) for step in steps])


@pytest.mark.parametrize('decay', ['cosine', 'stepwise', 'polynomial'])
@pytest.mark.parametrize('batch', [64, 128])
@pytest.mark.parametrize('flavour', ['tf1', 'keras'])
def test_factor__equals_the_reference(flavour: str, batch: int, decay: Any) -> None:
    oracle = load_oracle('schedules')
    lr = 0.08 * batch / 64
    graph = flavour == 'tf1'
    scheduler = ReferenceLR(
        make_sgd(lr),
        decay,
        warmup_factor=0.1 if graph else 0.008 / lr,
        max_epochs=300,
        steps_per_epoch=EXAMPLES / batch if graph else int(oracle['steps_per_epoch']),
    )
    expected = oracle[f'{flavour}_{decay}_bs{batch}']
    valid = ~np.isnan(expected)  # the reference's polynomial has no value after the end
    assert valid.sum() > 40
    own = lr * factors_of(scheduler, oracle['steps'])
    # The reference computes in float32: near 0 its rounding is of the size of the base rate's.
    np.testing.assert_allclose(own[valid], expected[valid], rtol=1e-6, atol=1e-6 * lr)
    assert np.isfinite(own).all()
    if graph:
        settings = scheduler.settings
        marks = [settings['warmup_steps'], settings['total_steps']]
        assert marks == oracle[f'tf1_bs{batch}_warmup_total'].tolist()


def test_factor__polynomial_stays_at_its_end() -> None:
    scheduler = ReferenceLR(make_sgd(), 'polynomial', max_epochs=10, steps_per_epoch=4)
    assert factors_of(scheduler, np.array([39, 40, 41, 80])).tolist()[1:] == [0, 0, 0]


def test_factor__cosine_from_the_end_of_the_warmup_starts_at_one_and_ends_at_zero() -> None:
    arguments = {'decay': 'cosine', 'max_epochs': 10, 'steps_per_epoch': 100}
    later = ReferenceLR(make_sgd(), from_warmup_end=True, **arguments)
    assert factors_of(later, np.array([100, 1000])) == pytest.approx([1, 0])
    own = factors_of(ReferenceLR(make_sgd(), **arguments), np.array([100, 900, 1000]))
    assert own[0] < 1
    assert own[1] == pytest.approx(0)
    assert own[2] > 0


def test_factor__constant() -> None:
    scheduler = ReferenceLR(make_sgd(), 'constant', steps_per_epoch=4)
    assert factors_of(scheduler, np.array([0, 2, 4, 10**6])).tolist() == [0.1, 0.55, 1, 1]


def test_config__epochs_become_steps_and_groups_keep_their_ratio() -> None:
    wrapper = ClippedOptimWrapper(make_sgd())
    config = {'type': 'ReferenceLR', 'decay': 'cosine', 'convert_to_iter_based': True}
    # As Runner does: the loop's epochs as `end`, the loader's length beside the optimiser.
    scheduler = PARAM_SCHEDULERS.build(
        {**config, 'end': 10}, default_args={'optimizer': wrapper, 'epoch_length': 5}
    )
    assert (scheduler.settings['warmup_steps'], scheduler.settings['total_steps']) == (5, 50)
    assert not scheduler.by_epoch
    rates = []
    for _ in range(50):
        rates.append([group['lr'] for group in wrapper.optimizer.param_groups])
        wrapper.step()
        scheduler.step()
    factors = [lr_factor(step, **scheduler.settings) for step in range(50)]
    np.testing.assert_allclose([r[0] for r in rates], 0.16 * np.array(factors))
    np.testing.assert_allclose([r[1] for r in rates], 0.016 * np.array(factors))


def test_state__resumes_where_it_was(tmp_path: Any) -> None:
    def build() -> tuple[SGD, ReferenceLR]:
        optimizer = make_sgd()
        return optimizer, ReferenceLR(optimizer, max_epochs=10, steps_per_epoch=5, by_epoch=False)

    optimizer, scheduler = build()
    for _ in range(7):
        optimizer.step()
        scheduler.step()
    file = tmp_path / 'state.pth'
    torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
    states = torch.load(file, weights_only=True)
    resumed_optimizer, resumed = build()
    resumed_optimizer.load_state_dict(states[0])
    resumed.load_state_dict(states[1])
    for _ in range(5):
        optimizer.step()
        scheduler.step()
        resumed_optimizer.step()
        resumed.step()
        assert [g['lr'] for g in optimizer.param_groups] == [
            g['lr'] for g in resumed_optimizer.param_groups
        ]


def make_scheduler(lr: float = 0.16, **arguments: Any) -> ReferenceLR:
    arguments = {'steps_per_epoch': 5, 'end': 50, 'by_epoch': False, **arguments}
    return ReferenceLR(make_sgd(lr), **arguments)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of the log."""
    lines: list[str] = []
    monkeypatch.setattr(schedule, 'print_log', lambda line, **_: lines.append(line))
    return lines


def rates_of(scheduler: ReferenceLR, steps: int) -> list[list[float]]:
    """The groups' rates of so many steps from here on."""
    rates = []
    for _ in range(steps):
        rates.append([group['lr'] for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize('done', [20, 50])
@pytest.mark.parametrize(
    'change',
    [
        {'end': 100},
        {'lr': 0.04},
        {'end': 100, 'decay': 'stepwise', 'milestones': [12, 15]},
        {'steps_per_epoch': 10, 'end': 100},  # half the batch
        {'steps_per_epoch': 10, 'end': 200, 'lr': 0.08},
        {'end': 100, 'begin': 10},
    ],
    ids=str,
)
def test_state__follows_the_schedule_of_the_new_config(
    change: dict[str, Any], done: int, log: list[str]
) -> None:
    old = make_scheduler()
    rates_of(old, done)
    unbroken, resumed = make_scheduler(**change), make_scheduler(**change)
    there = done * change.get('steps_per_epoch', 5) // 5  # the same epoch
    rates_of(unbroken, there)
    # As Runner.resume does.
    resumed.optimizer.load_state_dict(old.optimizer.state_dict())
    resumed.load_state_dict(to_weights_only(old.state_dict()))
    assert len(log) == 1
    assert ('total_steps is 50 there and ' in log[0]) == ('end' in change)
    assert ('base_values is [0.16, 0.016] there and ' in log[0]) == ('lr' in change)
    assert rates_of(resumed, 60) == rates_of(unbroken, 60)
    assert resumed.state_dict() == unbroken.state_dict()


def test_state__an_unchanged_schedule_is_not_logged(log: list[str]) -> None:
    old, resumed = make_scheduler(), make_scheduler(verbose=True)
    rates_of(old, 20)
    state = to_weights_only(old.state_dict())
    resumed.load_state_dict(state)
    assert not log
    assert resumed.state_dict() == {**old.state_dict(), 'verbose': True}


def test_state__of_another_scheduler_gives_its_progress_only() -> None:
    old = CosineAnnealingLR(make_sgd(), T_max=50, by_epoch=False)
    for _ in range(20):
        old.optimizer.step()
        old.step()
    unbroken, resumed = make_scheduler(), make_scheduler()
    rates_of(unbroken, 20)
    resumed.load_state_dict(old.state_dict())
    assert resumed.state_dict() == unbroken.state_dict()


@pytest.mark.parametrize('arguments', [{'decay': 'linear'}, {'decay': 'cosine'}])
def test_init__says_what_is_wrong(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match='ReferenceLR'):
        ReferenceLR(make_sgd(), **arguments)
