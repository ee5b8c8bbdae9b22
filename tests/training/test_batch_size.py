"""``--batch-size auto``: what fits into the memory of a GPU, which is made up here."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config

from effdet_plugin.errors import ConfigError
from effdet_plugin.training import TrainSettings, batch_size, plain_settings, prepare, train
from effdet_plugin.training.batch_size import fit_batch, largest_batch, measure
from support import REPOSITORY

CONFIG = REPOSITORY / 'configs' / 'efficientdet' / 'custom_coco.py'
GB = 2.0**30


def config(**others: Any) -> Config:
    optim = dict(optimizer=dict(type='AdamW', lr=0.002))
    return Config(dict(train_dataloader=dict(batch_size=8), optim_wrapper=optim, **others))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A GPU of 20 GB; a step takes 1 GB, and half a GB for each image."""
    given = SimpleNamespace(free=20 * GB, each=0.5 * GB)
    monkeypatch.setattr(batch_size, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda: (given.free, given.free))
    monkeypatch.setattr(batch_size, 'measure', lambda _, images: GB + images * given.each)
    return given


@pytest.mark.parametrize(
    ('each', 'images', 'batch', 'rate'),
    [
        (0.5, None, 32, 0.002),  # (20 * .85 - 1) / .5 = 32
        (0.5, 100, 24, 0.002),
        (0.5, 3, 1, 0.002 / 8**0.5),
        (0.7, None, 20, 0.002),
        (5.0, None, 2, 0.001),
    ],
)
def test_fit_batch(
    gpu: SimpleNamespace, each: float, images: int | None, batch: int, rate: float
) -> None:
    gpu.each = each * GB
    cfg = config()
    assert f'auto: {batch}, an image takes' in fit_batch(cfg, images)
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(rate, rel=1e-2)


def test_fit_batch__a_rate_that_is_given_stays(gpu: SimpleNamespace) -> None:
    gpu.each = 5 * GB
    cfg = config()
    fit_batch(cfg, None, ['optim_wrapper.optimizer.lr'])
    assert cfg.optim_wrapper.optimizer.lr == 0.002


def test_fit_batch__mistakes(gpu: SimpleNamespace) -> None:
    gpu.free = 1.0
    with pytest.raises(ConfigError, match=r'--image-size or --model, or --amp'):
        fit_batch(config(), None)
    with pytest.raises(ConfigError, match='measures one process only'):
        fit_batch(config(launcher='pytorch'), None)
    with pytest.raises(ConfigError, match='a resumed run keeps its batch'):
        fit_batch(config(resume=True), None)


def test_fit_batch__a_cpu_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, 'get_device', lambda: 'cpu')
    cfg = config()
    assert 'auto: 8; a CPU gains nothing' in fit_batch(cfg, None)
    assert cfg.train_dataloader.batch_size == 8


def test_largest_batch__more_memory_is_never_less() -> None:
    found = [largest_batch(lambda n: 10.0 * n, free, 32) for free in range(0, 400, 7)]
    assert found == sorted(found)
    assert {*found} == {0, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32}


def test_measure__some_steps_of_a_training(
    data: Path, small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU, with counters that are made up: the steps are real."""
    monkeypatch.setattr(torch.cuda, 'reset_peak_memory_stats', lambda: None)
    monkeypatch.setattr(torch.cuda, 'memory_allocated', lambda: 100)
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated', lambda: 350)
    cfg = prepare(TrainSettings(CONFIG, data, tmp_path / 'run', 64, cfg_options=small)).cfg
    before = cfg.to_dict()
    assert measure(cfg, 2) == 250
    assert cfg.to_dict() == before


def test_train__auto_on_a_cpu(
    data: Path, small: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f'{key}={value}' for key, value in small.items()]
    given = dict(data=data, batch_size='auto', image_size=64, cfg_options=options)
    cfg = train(plain_settings(work_dir=tmp_path / 'run', **given))
    assert cfg.train_dataloader.batch_size == 2
    assert '--batch-size auto: 2' in capsys.readouterr().out


def test_plain_settings__another_word_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match='--batch-size all: must be a number above 0, or auto'):
        plain_settings(data='x', batch_size='all')
