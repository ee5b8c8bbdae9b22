"""Imported by the tests' config: a hook that lets one thing go wrong at one step.

``FAULT=WHAT@STEP`` or ``WHAT@STEP@RANK``, steps counted from 1, the fault before the step. WHAT is

- a signal's name: the process gets it (SIGINT: its workers, too, as from a keyboard);
- ``write``: dies in the middle of the first large file that it writes after the step;
- ``nan``: the gradient of the first parameter is NaN at this step;
- ``worker``: the loader's workers are killed, as by a system that is out of memory;
- ``pause``: makes ``$FAULT_FILE`` and waits until it is removed;
- ``slow``: makes ``$FAULT_FILE``, and each step takes half a second from now on.
"""

import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook

_LARGE = 100_000  # bytes: more than logs and configs have, less than a checkpoint
_PAUSE = 60.0


@HOOKS.register_module()
class FaultHook(Hook):
    """Does what ``FAULT`` says; nothing without it."""

    def __init__(self) -> None:
        what, step, rank = [*os.environ.get('FAULT', '').split('@'), '', ''][:3]
        mine = not rank or rank == os.environ.get('RANK', '0')
        self.what, self.step = (what, int(step)) if what and mine else ('', -1)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """The fault, if it is time for it."""
        number = runner.iter + 1
        if self.what == 'slow' and number > self.step:
            time.sleep(0.5)
        if number != self.step:
            return
        if self.what.startswith('SIG'):
            target = os.kill if self.what != 'SIGINT' else os.killpg
            target(os.getpid(), getattr(signal, self.what))
        else:
            getattr(self, f'_{self.what}')(runner)

    def _write(self, runner: Any) -> None:
        # A process that writes beyond its limit gets a signal, which Python ignores.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGE, _LARGE))

    def _nan(self, runner: Any) -> None:
        parameter = next(p for p in runner.model.parameters() if p.requires_grad)
        parameter.register_hook(lambda gradient: torch.full_like(gradient, float('nan')))

    def _worker(self, runner: Any) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    def _pause(self, runner: Any) -> None:
        file = Path(os.environ['FAULT_FILE'])
        file.touch()
        deadline = time.monotonic() + _PAUSE
        while file.exists() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _slow(self, runner: Any) -> None:
        Path(os.environ['FAULT_FILE']).touch()
