"""A training that is stopped by a signal, and resumed, equals one that never stopped."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import in_child
from mmdet.registry import RUNNERS
from mmengine.hooks import Hook
from toy import losses_of, toy_config, train

from effdet_plugin.engine.checkpoint import INTERRUPTED
from effdet_plugin.engine.resume import find_resume
from effdet_plugin.engine.stopping import StopHook

STEPS = 6  # of an epoch, of 4


class SignalAt(Hook):
    """Sends a signal to this process before a step, or in an evaluation."""

    def __init__(self, number: int, step: int, in_evaluation: bool = False) -> None:
        self.number, self.step, self.in_evaluation = number, step, in_evaluation

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter + 1 == self.step and not self.in_evaluation:
            os.kill(os.getpid(), self.number)

    def before_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == self.step and self.in_evaluation:
            os.kill(os.getpid(), self.number)


def stopped(work_dir: Path, at: SignalAt, changes: dict[str, Any]) -> None:
    runner = RUNNERS.build(toy_config(work_dir, **changes))
    runner.register_hook(at)
    runner.register_hook(StopHook('THE COMMAND'))
    try:
        runner.train()
    except KeyboardInterrupt:
        sys.exit(130)


def resumed(work_dir: Path, changes: dict[str, Any]) -> None:
    train(toy_config(work_dir, resume='auto', **changes))


@pytest.mark.parametrize(
    ('number', 'step', 'code', 'left', 'counts'),
    [
        (signal.SIGINT, 8, 130, INTERRUPTED, 1),
        (signal.SIGTERM, 1, 143, INTERRUPTED, 1),  # before there is another checkpoint
        (signal.SIGTERM, 12, 143, 'epoch_2.pth', 1),  # the last step of an epoch
        (signal.SIGTERM, 9, 143, INTERRUPTED, 2),  # stops with the next update, after step 10
    ],
)
def test_stopped__and_resumed(
    tmp_path: Path, number: int, step: int, code: int, left: str, counts: int
) -> None:
    changes = {'optim_wrapper': {'accumulative_counts': counts}}
    whole, cut = tmp_path / 'whole', tmp_path / 'cut'
    assert in_child(train, toy_config(whole, **changes)) == 0
    assert in_child(stopped, cut, SignalAt(number, step), changes) == code
    assert find_resume(cut) == cut / left
    done = -(-step // counts) * counts
    assert max(losses_of(cut)) == done - 1  # they count from 0
    saved = torch.load(cut / left, weights_only=True)['meta']
    assert (saved['iter'], saved['epoch']) == (done, done // STEPS)
    assert saved.get('batches', 0) == done % STEPS
    assert in_child(resumed, cut, changes) == 0
    assert losses_of(cut) == losses_of(whole)
    assert not (cut / INTERRUPTED).exists()
    weights = [torch.load(d / 'epoch_4.pth', weights_only=True) for d in (cut, whole)]
    for name, tensor in weights[1]['state_dict'].items():
        assert torch.equal(weights[0]['state_dict'][name], tensor), name


def test_stopped__in_an_evaluation(tmp_path: Path) -> None:
    at = SignalAt(signal.SIGTERM, 2 * STEPS, in_evaluation=True)
    assert in_child(stopped, tmp_path, at, {}) == 143
    assert find_resume(tmp_path) == tmp_path / 'epoch_2.pth'
    assert in_child(resumed, tmp_path, {}) == 0
    assert (tmp_path / 'epoch_4.pth').exists()


def test_second_signal__stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = StopHook('x')
    hook._before = {signal.SIGINT: signal.default_int_handler}
    hook._note(signal.SIGINT, None)
    assert hook.signal == signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        hook._note(signal.SIGINT, None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signal__in_a_loader_worker_is_not_its_own() -> None:
    hook = StopHook('x')
    hook._process = os.getpid() + 1
    hook._note(signal.SIGINT, None)
    assert hook.signal is None
