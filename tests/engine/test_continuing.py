"""A checkpoint of another network, optimizer or without an average is not resumed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.optim import CosineAnnealingLR, LinearLR, MultiStepLR
from torch import nn

from effdet_plugin.engine import resume, schedule
from effdet_plugin.engine.checkpoint import first_bad_state
from effdet_plugin.engine.resume import check_continues
from effdet_plugin.engine.schedule import ReferenceLR, check_schedules
from effdet_plugin.errors import CheckpointError


class Wrapper:
    """What is read of an optimizer wrapper."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer


def network(outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(2, outputs), nn.BatchNorm1d(outputs))


def sgd(model: nn.Module, **more: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, **more)


def checkpoint(name: str | None = 'SGD', **more: Any) -> dict[str, Any]:
    model = network()
    meta = {} if name is None else {'optimizer_type': name}
    return {
        'meta': meta,
        'state_dict': model.state_dict(),
        'optimizer': sgd(model).state_dict(),
        **more,
    }


def check(content: dict[str, Any], model: nn.Module, optimizer: Any, average: bool = False) -> None:
    wrapper: Any = Wrapper(optimizer)
    check_continues(Path('a') / 'x.pth', content, model, wrapper, average)


def test_same__passes() -> None:
    model = network()
    check(checkpoint(), model, sgd(model, nesterov=True))
    check(checkpoint(None), model, sgd(model))
    check(checkpoint(ema_state_dict={}), model, sgd(model), average=True)
    check(checkpoint(), model, sgd(model), average=True)  # the average starts with the weights
    check(checkpoint(optimizer={'a': {}}), model, sgd(model))  # several optimizers


def frozen(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model[0].parameters(), lr=0.1)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters())


@pytest.mark.parametrize(
    ('content', 'model', 'make', 'words'),
    [
        (checkpoint(), network(4), sgd, r'0\.weight \[3, 2\] for \[4, 2\]'),
        (checkpoint(), network().append(nn.Linear(3, 3)), sgd, r'2 of 9.*2\.weight'),
        (checkpoint(), network()[:1], sgd, r'5 tensors .* not in the network.*1\.bias'),
        (checkpoint(), network(), frozen, r'4 parameters in 1 groups, that of the config 2 in 1'),
        (checkpoint(), network(), adam, 'is SGD, not AdamW'),
        (checkpoint(None), network(), adam, 'has no amsgrad, so it was not AdamW'),
        (checkpoint(ema_state_dict={}), network(), sgd, 'moving average.*no hook'),
    ],
)
def test_other__is_refused(
    content: dict[str, Any], model: nn.Module, make: Any, words: str
) -> None:
    with pytest.raises(CheckpointError, match=rf'^a/x\.pth: .*{words}') as error:
        check(content, model, make(model))
    assert '\n' not in str(error.value)


def test_other_parameters_of_the_same_number__are_refused() -> None:
    """torch would give the momentum of a frozen layer's weights to another's."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5))
    first, second = (torch.optim.SGD(part.parameters(), lr=0.1, momentum=0.9) for part in model)
    model(torch.ones(1, 2)).sum().backward()
    first.step()
    content = {
        'meta': {},
        'state_dict': model.state_dict(),
        'optimizer': first.state_dict(),
    }
    check(content, model, first)
    with pytest.raises(CheckpointError, match=r'number 0 is \[3, 2\] there and \[5, 3\] here'):
        check(content, model, second)


def test_settings_that_do_not_count__are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(resume, 'print_log', lambda line, **_: lines.append(line))
    model = network()
    check(checkpoint(), model, torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.5))
    assert lines == [
        'group 0 of the optimizer keeps momentum=0.9 of the checkpoint; '
        "the config's 0.5 is not used"
    ]


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_state_that_is_no_number__is_refused_by_name(value: float) -> None:
    model = network()
    optimizer = sgd(model)
    model(torch.ones(2, 2)).sum().backward()
    optimizer.step()
    content = checkpoint(optimizer=optimizer.state_dict())
    check(content, model, optimizer)
    content['optimizer']['state'][1]['momentum_buffer'][0] = value
    content['optimizer']['state'][2]['momentum_buffer'][0] = value
    with pytest.raises(CheckpointError, match=r'optimizer\.state\.1\.momentum_buffer is NaN'):
        check(content, model, optimizer)
    content['optimizer']['param_groups'][0]['lr'] = value
    assert first_bad_state({'optimizer': {'param_groups': [{'lr': value}]}}) is not None
    assert first_bad_state({}) is None


def schedules(*makers: Any) -> list[Any]:
    optimizer = sgd(network())
    return [make(optimizer) for make in makers]


def saved(*makers: Any, named: bool = True) -> dict[str, Any]:
    built = schedules(*makers)
    types = [type(one).__name__ for one in built]
    meta = {'scheduler_types': types} if named else {}
    return {'meta': meta, 'param_schedulers': [one.state_dict() for one in built]}


def linear(optimizer: Any) -> LinearLR:
    return LinearLR(optimizer, end=3)


def steps(optimizer: Any, first: int = 2) -> MultiStepLR:
    return MultiStepLR(optimizer, milestones=[first])


def cosine(optimizer: Any) -> CosineAnnealingLR:
    return CosineAnnealingLR(optimizer, T_max=4)


def reference(optimizer: Any) -> ReferenceLR:
    return ReferenceLR(optimizer, end=4)


@pytest.mark.parametrize(
    ('content', 'own', 'words'),
    [
        (saved(reference), [steps], 'is ReferenceLR, that of the config MultiStepLR'),
        (saved(linear, steps), [steps], 'is LinearLR, MultiStepLR, that of the config MultiStepLR'),
        (saved(steps), [linear, steps], 'is MultiStepLR, that of the config LinearLR, MultiStepLR'),
        (saved(linear, named=False), [steps], 'is none with the gamma of MultiStepLR'),
        (saved(steps, named=False), [linear, steps], 'is 1 of them, that of the config LinearLR'),
        ({'meta': {}}, [cosine], 'is no of them, that of the config CosineAnnealingLR'),
        ({'meta': {}}, [reference], 'is no of them, that of the config ReferenceLR'),
    ],
)
def test_other_schedule__is_refused(content: dict[str, Any], own: list[Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=f'^param_scheduler of the checkpoint {words}') as e:
        check_schedules(content, schedules(*own))
    assert '\n' not in str(e.value)


def test_schedule__settings_that_do_not_count_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(schedule, 'print_log', lambda line, **_: lines.append(line))
    for content in (saved(linear, steps), saved(linear, steps, named=False)):
        check_schedules(content, schedules(linear, steps))
    check_schedules(saved(linear, steps), schedules(reference))  # it tells when it continues
    check_schedules(saved(linear), None)  # mmengine says so
    assert lines == []
    check_schedules(saved(linear, steps), schedules(linear, lambda o: steps(o, 3)))
    assert lines == [
        "MultiStepLR keeps milestones={2: 1} of the checkpoint; the config's {3: 1} is not used "
        '(ReferenceLR would use it)'
    ]


def test_reference__continues_at_the_epoch_of_a_schedule_that_counts_epochs() -> None:
    (there,), (here,) = (
        schedules(cosine),
        schedules(
            lambda o: ReferenceLR(
                o, max_epochs=8, warmup_epochs=0, steps_per_epoch=10, by_epoch=False
            )
        ),
    )
    for _ in range(4):
        there.step()
    here.load_state_dict(there.state_dict())
    assert (here._global_step, here.last_step) == (40, 40)
