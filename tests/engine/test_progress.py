"""The bar counts the steps and shows the loss."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from mmengine.runner import Runner

from effdet_plugin.engine.progress import ProgressBarHook


def test_progress_bar__counts_steps_and_shows_the_loss(capsys: pytest.CaptureFixture[str]) -> None:
    runner: Any = SimpleNamespace(max_iters=4, iter=0)
    hook = ProgressBarHook(interval=2)
    hook.before_train(cast(Runner, runner))
    for step in range(4):
        runner.iter = step
        hook.after_train_iter(runner, step, outputs={'loss': torch.tensor(2.0 / (step + 1))})
    hook.after_train(runner)
    shown = capsys.readouterr().err
    assert '4/4' in shown
    assert 'loss=0.500' in shown
