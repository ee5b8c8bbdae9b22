"""What a training learns about its fusions is written and drawn, also over a resume."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from effdet_plugin.engine.fusion_weights import (
    PLOT_NAME,
    RECORD_NAME,
    FusionWeightsHook,
    fusion_weights,
    read_records,
)
from effdet_plugin.models import BiFPN


def model_of(fusion: str = 'fast_attn') -> nn.Module:
    return nn.ModuleDict({'neck': BiFPN([4, 4], 4, num_outs=3, num_cells=2, fusion=fusion)})


def runner_of(folder: Path, model: nn.Module, step: int = 0) -> SimpleNamespace:
    return SimpleNamespace(work_dir=str(folder), model=model, iter=step)


def train(hook: FusionWeightsHook, runner: SimpleNamespace, until: int) -> None:
    hook.before_train(runner)
    for step in range(runner.iter, until):
        runner.iter = step
        hook.after_train_iter(runner, step)


def test_fusion_weights__are_those_that_the_maps_are_multiplied_with() -> None:
    model = model_of()
    found = fusion_weights(model)
    assert next(iter(found)) == 'neck.cells.0.nodes.0'
    assert len(found) == 2 * 4
    torch.testing.assert_close(
        found['neck.cells.1.nodes.2'].sum(), torch.tensor(1.0), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize('fusion', ['attn', 'channel_attn'])
def test_fusion_weights__softmax_and_channels(fusion: str) -> None:
    weights = fusion_weights(model_of(fusion))['neck.cells.0.nodes.2']
    torch.testing.assert_close(weights, torch.full((3,), 1 / 3))


def test_hook__records_the_start_and_every_interval_and_draws(tmp_path: Path) -> None:
    hook, runner = FusionWeightsHook(interval=2), runner_of(tmp_path, model_of())
    train(hook, runner, until=5)
    hook.after_train_epoch(runner)
    records = read_records(tmp_path / RECORD_NAME)
    assert [record['step'] for record in records] == [0, 2, 4]
    assert records[0]['weights']['neck.cells.0.nodes.0'] == pytest.approx([0.5, 0.5], abs=1e-4)
    assert (tmp_path / PLOT_NAME).read_bytes().startswith(b'\x89PNG')


def test_hook__draws_after_each_epoch_that_recorded_something(tmp_path: Path) -> None:
    hook, runner = FusionWeightsHook(interval=4), runner_of(tmp_path, model_of())
    train(hook, runner, until=4)
    hook.after_train_epoch(runner)
    (tmp_path / PLOT_NAME).unlink()
    hook.after_train_epoch(runner)  # no step was recorded in this epoch
    assert not (tmp_path / PLOT_NAME).exists()
    runner.iter = 7
    hook.after_train_iter(runner, 7)
    hook.after_train_epoch(runner)
    assert (tmp_path / PLOT_NAME).exists()


def test_hook__records_the_last_step_whatever_the_interval(tmp_path: Path) -> None:
    hook, runner = FusionWeightsHook(interval=4), runner_of(tmp_path, model_of())
    train(hook, runner, until=6)
    hook.after_train_epoch(runner)
    runner.iter = 6  # mmengine counts on after the last step
    hook.after_train(runner)
    hook.after_train(runner)
    assert [record['step'] for record in read_records(tmp_path / RECORD_NAME)] == [0, 4, 6]


def test_hook__a_resumed_run_goes_on_without_doubles(tmp_path: Path) -> None:
    model = model_of()
    train(FusionWeightsHook(interval=2), runner_of(tmp_path, model), until=6)
    with (tmp_path / RECORD_NAME).open('a') as file:
        file.write('{"step": 8, "wei')  # killed while it wrote
    train(FusionWeightsHook(interval=2), runner_of(tmp_path, model, step=4), until=8)
    lines = (tmp_path / RECORD_NAME).read_text().splitlines()
    assert [json.loads(line)['step'] for line in lines] == [0, 2, 4, 6, 8]


def test_hook__plain_sums_have_nothing_to_record(tmp_path: Path) -> None:
    hook, runner = FusionWeightsHook(interval=1), runner_of(tmp_path, model_of('sum'))
    train(hook, runner, until=2)
    hook.after_train_epoch(runner)
    assert list(tmp_path.iterdir()) == []
