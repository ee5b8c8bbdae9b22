"""``--time``: epochs that fit, and the end where they were measured wrongly."""

import math
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config

from effdet_plugin.errors import ConfigError
from effdet_plugin.training import TrainSettings, time_budget, train
from effdet_plugin.training.time_budget import TimeLimitHook, fit_epochs
from support import REPOSITORY

CONFIG = REPOSITORY / 'configs' / 'efficientdet' / 'custom_coco.py'


def config(epochs: int = 50, **others: Any) -> Config:
    cfg = dict(train_cfg=dict(max_epochs=epochs), param_scheduler=[dict(warmup_epochs=2)])
    return Config({**cfg, **others})


@pytest.mark.parametrize(
    ('seconds', 'epochs', 'warm_up', 'words'),
    [
        (10_000, 50, 2, 'has 50 of 50 epochs'),
        (300, 28, 2, 'has 28 of 50 epochs'),  # (300 - 5 to start) * 0.95 / 10
        (60, 5, 1.0, 'has 5 of 50 epochs'),
        (5, 1, 0.2, 'one epoch is trained all the same'),
    ],
)
def test_fit_epochs(
    seconds: float, epochs: int, warm_up: float, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = time_budget._Trial(1.0, 10.0, 5.0, math.inf)
    monkeypatch.setattr(time_budget, '_measure', lambda *_: trial)
    cfg = config()
    line = fit_epochs(cfg, seconds, time.monotonic())
    assert words in line
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.param_scheduler[0].warmup_epochs == pytest.approx(warm_up)


@pytest.mark.parametrize(
    ('cfg', 'words'),
    [
        (Config(dict(train_cfg=dict(max_iters=9))), 'counts steps, not epochs'),
        (config(launcher='pytorch'), 'measures one process only'),
        (config(resume=True), 'a resumed run keeps the length'),
    ],
)
def test_fit_epochs__mistakes(cfg: Config, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        fit_epochs(cfg, 60, time.monotonic())


@pytest.mark.parametrize(
    ('trials', 'given', 'threads', 'epochs'),
    [
        ([(100.0, 3.9)], None, 4, 5),  # seconds of an epoch, cores in use
        ([(100.0, 2.0), (50.0, 1.9)], None, 2, 11),
        ([(100.0, 2.0), (50.0, 1.0), (25.0, 0.9)], None, 1, 22),
        ([(100.0, 2.0), (95.0, 1.9)], None, 4, 5),  # it was the disk, not the cores
        ([(100.0, 2.0)], '4', 4, 5),
    ],
)
def test_fit_epochs__fewer_threads_beside_other_programs(
    trials: list[tuple[float, float]],
    given: str | None,
    threads: int,
    epochs: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = iter(trials)

    def measure(*_: Any) -> time_budget._Trial:
        epoch, cores = next(measured)
        return time_budget._Trial(epoch / 20, epoch, 5.0, cores)

    monkeypatch.setattr(time_budget, '_measure', measure)
    monkeypatch.setattr(time_budget, 'get_device', lambda: 'cpu')
    if given is None:
        monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    else:
        monkeypatch.setenv('OMP_NUM_THREADS', given)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        cfg = config()
        fit_epochs(cfg, 600, time.monotonic())
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert cfg.train_cfg.max_epochs == epochs
    assert not list(measured)


def test_time_limit__the_last_epoch_is_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, 'monotonic', lambda: now)
    said: list[str] = []
    runner = SimpleNamespace(
        epoch=0,
        train_loop=SimpleNamespace(max_epochs=9, _max_epochs=9),
        logger=SimpleNamespace(warning=said.append),
    )
    hook = TimeLimitHook(100, now)
    hook.before_train(runner)
    for runner.epoch in range(3):
        now += 30
        hook.after_train_epoch(runner)
        assert runner.train_loop._max_epochs == (9 if runner.epoch < 2 else 3)
    assert said == [s for s in said if 'ends with epoch 3 of 9' in s] != []


def test_trial__ends_with_the_second_step_where_steps_take_long() -> None:
    clock = time_budget._Clock(time.monotonic() - 1)
    clock.after_train_iter(None)
    with pytest.raises(time_budget._EnoughError):
        clock.after_train_iter(None)
    assert len(clock.train) == 2
    assert 0 <= clock.cores() < 64
    assert time_budget._typical([1.0, 3.0], 9.0) == 2.0
    assert time_budget._typical([0.0, 9.0, 18.0, 27.0, 29.0, 31.0], 1.0) == 2.0
    assert time_budget._typical([1.0], 9.0) == 9.0


def test_train__in_a_given_time(
    data: Path, tmp_path: Path, small: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = TrainSettings(
        CONFIG,
        data=data,
        work_dir=tmp_path / 'run',
        image_size=64,
        cfg_options=small | {'train_cfg.max_epochs': 40},
        seconds=0.01,
    )
    assert Path(train(settings).work_dir) == tmp_path / 'run'
    assert capsys.readouterr().out.startswith('--time: measuring some steps\n')
    assert [path.name for path in (tmp_path / 'run').glob('epoch_*.pth')] == ['epoch_1.pth']
    checkpoint = torch.load(tmp_path / 'run' / 'epoch_1.pth', weights_only=True)
    assert checkpoint['meta']['iter'] == 2
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert 'has 1 of 40 epochs' in log
    assert re.search(r'few steps +2 in all \(.*more --time\)$', log, re.MULTILINE)
