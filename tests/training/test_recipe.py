"""The recipe: what the data decide, what a person has set, and that it is a function."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effdet_plugin.training import TrainSettings, prepare
from effdet_plugin.training.recipe import WARM_UP_SHARE, Schedule, Statistics, choose
from support import REPOSITORY

CONFIG = REPOSITORY / 'configs' / 'efficientdet' / 'custom_coco.py'

schedules = st.builds(
    Schedule,
    epochs=st.integers(1, 400),
    batch=st.integers(1, 512),
    warm_up=st.floats(0, 10),
    size=st.integers(128, 2048),
)
shares = st.floats(0, 1)
data_sets = st.builds(
    Statistics, st.integers(0, 10**6), st.integers(0, 10**7), shares, shares, st.just('')
)


def names(*arguments: Any) -> list[str]:
    return [choice.name for choice in choose(*arguments)]


@given(data_sets, schedules)
def test_choose__a_changed_value_is_within_its_bound(data: Statistics, asked: Schedule) -> None:
    found = choose(data, asked)
    changed = {choice.key: choice.number for choice in found if choice.key}
    assert {*changed} <= {'param_scheduler.0.warmup_epochs'}
    for number in changed.values():
        assert 0 <= number <= asked.warm_up
        assert number == pytest.approx(asked.epochs * WARM_UP_SHARE, abs=0.01)
    assert len({choice.name for choice in found}) == len(found)
    assert all(choice.value for choice in found)


@given(data_sets, schedules)
def test_choose__what_a_person_has_set_stays(data: Statistics, asked: Schedule) -> None:
    for path in ('param_scheduler', 'param_scheduler.0.warmup_epochs'):
        assert not [choice for choice in choose(data, asked, [path]) if choice.key]


@given(data_sets, schedules)
def test_choose__twice_is_once(data: Statistics, asked: Schedule) -> None:
    """A resumed run, whose config has the chosen values, chooses nothing else."""
    changed = [choice for choice in choose(data, asked) if choice.key]
    if changed:
        again = choose(data, asked._replace(warm_up=changed[0].number))
        assert not [choice for choice in again if choice.key]


@given(st.integers(1, 10**5), schedules)
def test_choose__more_images_are_never_too_few(images: int, asked: Schedule) -> None:
    is_few = ['few steps' in names(Statistics(n, n), asked) for n in (images, 2 * images)]
    assert is_few != [False, True]


def test_choose__by_hand() -> None:
    usual = Schedule(epochs=50, batch=8, warm_up=2, size=320)
    assert names(Statistics(200, 900), usual) == []
    (few,) = choose(Statistics(20, 40), usual)
    assert (few.value, few.key) == ('100 in all', '')
    assert '--epochs 150' in few.why
    short, _ = choose(Statistics(80, 90), usual._replace(epochs=3))
    assert (short.value, short.number) == ('0.6 epochs', 0.6)
    small, anchors = choose(Statistics(200, 900, 0.5, 0.3, '--image-size 640 (5%)'), usual)
    assert small.value == '50% of the boxes are below 12 px at 320'
    assert '--image-size 512' in small.why
    assert anchors.why == 'fewer with --image-size 640 (5%)'


def test_prepare__sets_and_tells_it(data: Path, small: dict[str, Any], tmp_path: Path) -> None:
    options = small | {'train_cfg.max_epochs': 4}
    settings = TrainSettings(CONFIG, data, tmp_path / 'run', image_size=64, cfg_options=options)
    prepared = prepare(settings)
    assert prepared.cfg.param_scheduler[0].warmup_epochs == pytest.approx(0.8)
    assert [choice.name for choice in prepared.choices][:2] == ['warm-up', 'few steps']
    own = options | {'param_scheduler.0.warmup_epochs': 3}
    prepared = prepare(TrainSettings(CONFIG, data, tmp_path / 'own', cfg_options=own))
    assert prepared.cfg.param_scheduler[0].warmup_epochs == 3
