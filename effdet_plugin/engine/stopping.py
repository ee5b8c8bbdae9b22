"""How a training ends early: by a signal, after its step, or where AP no longer rises."""

import math
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from effdet_plugin.engine.checkpoint import INTERRUPTED, LAST, AtomicCheckpointHook, random_state
from effdet_plugin.engine.optim import has_updated
from effdet_plugin.files import replacing

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_COUNTED = 'evaluations_without_rise'  # in the message hub, which checkpoints carry
_NOTICE = 'stopping after this step; once more stops at once'


class ContinuedTrainLoop(EpochBasedTrainLoop):
    """mmengine's loop over epochs, of which the first may begin in its middle.

    Attributes:
        skipped: Batches of the next epoch that were trained before the run was stopped.
    """

    skipped = 0

    def run_epoch(self) -> None:
        """Train what is left of an epoch; see mmengine."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        first, self.skipped = self.skipped, 0
        for index, batch in enumerate(self.dataloader, start=first):
            self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


class StopHook(Hook):
    """Ends a training at a signal, with a checkpoint of the step, and says how to resume it.

    The checkpoint is ``interrupted.pth`` in the work dir; the next one of an epoch removes it. A
    second signal ends the process at once. Where several processes train, these would have to
    agree on a step, which no step waits for: there the last epoch's checkpoint is the newest.

    Args:
        resume: What resumes the run, for people.
    """

    priority = 'LOWEST'  # all others have done this step

    def __init__(self, resume: str) -> None:
        self.resume = resume
        self.signal: int | None = None
        self._before: dict[int, Any] = {}
        self._process = os.getpid()

    def before_train(self, runner: Runner) -> None:
        """Take the signals; loader workers inherit that, so that Ctrl-C does not end them first."""
        if threading.current_thread() is not threading.main_thread() or not is_main_process():
            return
        self._process = os.getpid()
        for one in _SIGNALS:
            self._before[one] = signal.signal(one, self._note)

    def after_train(self, runner: Runner) -> None:
        """Give the signals back."""
        self.release()

    def release(self) -> None:
        """Give the signals back to whom they were taken from."""
        while self._before:
            signal.signal(*self._before.popitem())

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Write a checkpoint and stop, if a signal has come."""
        if self.signal is None or not has_updated(runner.optim_wrapper):
            return
        # The end of an epoch has its own checkpoint.
        if not self.end_of_epoch(runner.train_dataloader, batch_idx):
            saved = save_within_epoch(runner, batch_idx + 1)
            self._stop(runner, saved)

    def after_train_epoch(self, runner: Runner) -> None:
        """Stop after an epoch, whose checkpoint is written."""
        if self.signal is not None:
            self._stop(runner, None)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stop in an evaluation, before which the epoch's checkpoint was written."""
        if self.signal is not None:
            self._stop(runner, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a loader worker, which ends with the training
        if get_world_size() > 1:
            _say(1, f'stopped; resume: {self.resume}')
            self._at_once(number)
        elif self.signal is not None:
            self._at_once(number)
        else:
            self.signal = number
            _say(2, _NOTICE)

    def _at_once(self, number: int) -> None:
        self.release()
        os.kill(os.getpid(), number)

    def _stop(self, runner: Runner, saved: Path | None) -> None:
        self.release()
        step = runner.iter + (saved is not None)
        where = f'stopped after step {step:,} of {runner.max_iters:,}'
        what = f'{saved} is written' if saved else "the last epoch's checkpoint is the newest"
        runner.logger.info(f'{where}; {what}; resume: {self.resume}')
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + int(self.signal or 0))


def _say(stream: int, line: str) -> None:
    """Write to a stream as a signal's handler may do it, also if nobody reads it any more."""
    with suppress(OSError):
        os.write(stream, f'{line}\n'.encode())


def save_within_epoch(runner: Runner, batches: int) -> Path | None:
    """Write a checkpoint in the middle of an epoch, from which the rest of it can be trained.

    Args:
        runner: After a step, in the only process.
        batches: Of the epoch that were trained.

    Returns:
        The file; None where the loop or the sampler cannot begin in the middle.
    """
    hooks = [hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook)]
    can_skip = hasattr(runner.train_dataloader.sampler, 'skip')
    if not hooks or not can_skip or not isinstance(runner.train_loop, ContinuedTrainLoop):
        return None
    hook = hooks[0]
    hook.random_states = [random_state()]
    runner.save_checkpoint(
        hook.out_dir,
        INTERRUPTED,
        meta={'batches': batches},
        by_epoch=False,
        backend_args=hook.backend_args,
    )
    path = Path(hook.out_dir) / INTERRUPTED
    with replacing(Path(runner.work_dir) / LAST) as part:
        part.write_text(str(path))
    return path


@HOOKS.register_module()
class StopWhenFlatHook(EarlyStoppingHook):
    """mmengine's hook with a patience that follows the length of the training.

    A cosine schedule gains most in its last third, so that the patience is long: it ends trainings
    whose best checkpoint lies far back, not those that rest.

    Args:
        monitor: Metric, of which more is better.
        share: Of all evaluations, which may pass without a rise.
        least: Evaluations that may, however short the training is.
    """

    def __init__(self, monitor: str = 'coco/bbox_mAP', share: float = 0.4, least: int = 8) -> None:
        super().__init__(monitor=monitor, rule='greater', min_delta=0.0)
        self.share, self.least = share, least

    def before_train(self, runner: Runner) -> None:
        """Set the patience, and go on counting where a resumed run had arrived."""
        loop = runner.train_loop
        evaluations = loop.max_epochs / getattr(loop, 'val_interval', 1)
        self.patience = max(self.least, math.ceil(self.share * evaluations))
        kept = runner.message_hub.runtime_info.get(_COUNTED)
        if kept is not None:
            self.wait_count, self.best_score = int(kept[0]), float(kept[1])

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Count, and end the training if it is time."""
        if not metrics or self.monitor not in metrics:  # of another evaluator
            return
        super().after_val_epoch(runner, metrics)
        runner.message_hub.update_info(_COUNTED, [self.wait_count, float(self.best_score)])
