"""``--time``: as many epochs as fit into a given time, so that the schedule is a whole one."""

import copy
import io
import itertools
import math
import os
import statistics
import tempfile
import time
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from effdet_plugin.errors import ConfigError
from effdet_plugin.training.running import build_runner

_LOADERS = {'train_dataloader': 14, 'val_dataloader': 3}  # and the steps of each in the trial
_WARM_UP = 3  # first steps that are slower
_TAIL = 4  # last steps, for which the workers have loaded all: they leave the cores to the network
_MEASURED = 0.2  # share of the time after which the trial ends with the step it is at
_ALL_MEASURED = 0.33  # likewise, where trials with fewer threads follow
_BUSY = 0.75  # cores that each thread uses, at least, where it does not wait for others
_FASTER = 0.9  # of the time of a step: fewer threads are taken where they need less than that
THREADS = 'OMP_NUM_THREADS'  # who sets it keeps it
_RESERVE = 0.95  # of the time that is left: epochs are not all alike
_CHECKPOINT_SECONDS = 1.0
_LONGEST_WARM_UP = 0.2  # of the training, where its epochs are lowered


def fit_epochs(cfg: Config, seconds: float, started: float) -> str:
    """Measure some steps, and lower ``max_epochs`` to what fits; at least one epoch is left.

    The steps are those of a training of its own, in a temporary folder, that is thrown away. Where
    torch's threads wait for each other they are halved for this process, if that is faster.

    Args:
        cfg: Complete config, changed in place.
        seconds: For everything from ``started`` on.
        started: `time.monotonic` at the start.

    Returns:
        A line that says what was measured and chosen.

    Raises:
        ConfigError: The training does not count epochs, or is one of several processes.
    """
    if 'max_epochs' not in cfg.train_cfg:
        raise ConfigError('--time: the config counts steps, not epochs; set train_cfg.max_iters')
    if cfg.get('launcher', 'none') != 'none':
        raise ConfigError('--time: measures one process only; give --epochs for several')
    if cfg.get('resume'):
        raise ConfigError('--time: a resumed run keeps the length of its schedule; leave it out')
    # Up to a third of the time passes in silence otherwise, before there is a log.
    print('--time: measuring some steps', flush=True)
    trial, end = _measure(cfg, started + seconds * _MEASURED), started + seconds * _ALL_MEASURED
    while _waits(trial) and time.monotonic() < end:
        fewer = _with_fewer_threads(cfg, trial, end)
        if fewer is None:
            break
        trial = fewer
    epoch = trial.epoch
    left = seconds - (time.monotonic() - started) - trial.building
    wanted = int(cfg.train_cfg.max_epochs)
    fits = int(max(left, 0) * _RESERVE / epoch)
    chosen = max(1, min(wanted, fits))
    if chosen < wanted:
        cfg.train_cfg.max_epochs = chosen
        _shorten_warm_up(cfg, chosen)
    short = '' if fits else ', which does not fit: one epoch is trained all the same'
    return (
        f'--time: an epoch takes about {epoch:.0f} s here, so the training has {chosen} of '
        f'{wanted} epochs{short}'
    )


def _waits(trial: '_Trial') -> bool:
    """Whether threads wait for each other, and may be fewer."""
    threads = torch.get_num_threads()
    is_ours = get_device() == 'cpu' and threads > 1 and not os.getenv(THREADS)
    return is_ours and trial.cores < _BUSY * threads


def _with_fewer_threads(cfg: Config, before: '_Trial', end: float) -> '_Trial | None':
    """Halve the threads where that is faster; return its trial, None if they are left as they were.

    Where other programs use the cores, each of the thousand short kernels of a step waits for its
    slowest thread: two trainings of two threads on two cores took 7 s a step each, of one 1.4 s. A
    small network on many cores has too little work for all of them, too.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(threads // 2)
    trial = _measure(cfg, end)
    if trial.step < _FASTER * before.step:
        fewer = f'{threads // 2} thread{" is" if threads < 4 else "s are"}'
        print(f'--time: {fewer} faster here than {threads}', flush=True)
        return trial
    torch.set_num_threads(threads)
    return None


def _shorten_warm_up(cfg: Config, epochs: int) -> None:
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        if 'warmup_epochs' in scheduler:
            longest = epochs * _LONGEST_WARM_UP
            scheduler.warmup_epochs = min(scheduler.warmup_epochs, longest)


class _Trial(NamedTuple):
    """What some steps have shown.

    Attributes:
        step: Seconds of a training step.
        epoch: Seconds of an epoch with its share of evaluations.
        building: Seconds of a start.
        cores: Mean number of cores that this process had while it trained.
    """

    step: float
    epoch: float
    building: float
    cores: float


def _measure(cfg: Config, end: float) -> _Trial:
    """Train some steps.

    Args:
        cfg: Complete config.
        end: `time.monotonic` after which two training steps are enough.
    """
    folders = tempfile.TemporaryDirectory(prefix='effdet-time-')
    with folders as folder, redirect_stdout(io.StringIO()):  # pycocotools prints
        batches = {name: _batches(cfg[name]) for name in _LOADERS if cfg.get(name)}
        trial = short_training(cfg, Path(folder), batches)
        begin = time.monotonic()
        runner = build_runner(trial)
        clock = _Clock(end)
        runner.register_hook(clock)
        with suppress(_EnoughError):
            runner.train()
        building = clock.train[0] - begin if clock.train else 0.0
    interval = min(cfg.train_cfg.get('val_interval', 1), cfg.train_cfg.max_epochs)
    steps = clock.train[:-_TAIL] if len(clock.train) > 2 * _TAIL else clock.train
    step = _typical(steps, 1.0)
    seconds = batches['train_dataloader'] * step + _CHECKPOINT_SECONDS
    seconds += batches.get('val_dataloader', 0) * _typical(clock.val, step) / interval
    return _Trial(step, seconds, building, clock.cores())


def _batches(loader: ConfigDict) -> int:
    """Return the number of batches of an epoch, at least 1."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        images = len(DATASETS.build(copy.deepcopy(loader.dataset)))
    size = loader.get('batch_size', 1)
    return max(images // size if loader.get('drop_last') else -(-images // size), 1)


def short_training(cfg: Config, folder: Path, batches: dict[str, int]) -> Config:
    """Return the config of a training of some steps and one evaluation, to measure them.

    Args:
        cfg: Complete config, not changed.
        folder: What it writes is thrown away.
        batches: Of an epoch of each loader, such as ``train_dataloader``.
    """
    trial = copy.deepcopy(cfg)
    trial.work_dir = str(folder)
    trial.experiment_name = folder.name
    trial.log_level = 'ERROR'
    trial.load_from = None
    trial.train_cfg.update(max_epochs=1, val_interval=1)
    for name, number in batches.items():
        if number > _LOADERS[name]:  # a slice of less than that would be longer than the dataset
            trial[name].num_batch_per_epoch = _LOADERS[name]
    _shorten_warm_up(trial, 1)
    if trial.model.get('backbone', {}).get('pretrained'):
        trial.model.backbone.pretrained = False  # the time does not depend on the weights
    trial.setdefault('default_hooks', {})
    trial.default_hooks.checkpoint = None
    trial.visualizer = {'type': 'DetLocalVisualizer', 'vis_backends': []}
    return trial


def _typical(times: list[float], default: float) -> float:
    """Return the median of the seconds between events, the first of which are slower.

    Args:
        times: Of the events.
        default: If there are less than two.
    """
    steps = [after - before for before, after in itertools.pairwise(times)]
    kept = steps[_WARM_UP:] or steps[-1:]
    return statistics.median(kept) if kept else default


class _EnoughError(Exception):
    """Ends a trial that takes long."""


class _Clock(Hook):
    """Notes when steps end; ends the trial after some time."""

    def __init__(self, end: float) -> None:
        self.end = end
        self.train: list[float] = []
        self.used: list[float] = []  # CPU seconds of this process at the same moments
        self.val: list[float] = []

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Note the end of a training step."""
        del runner, args, kwargs
        self.train.append(time.monotonic())
        self.used.append(time.process_time())
        if self.train[-1] > self.end and len(self.train) > 1:
            raise _EnoughError

    def cores(self) -> float:
        """Return the mean number of cores in use between the first and the last training step."""
        if len(self.train) < 2:
            return math.inf
        return (self.used[-1] - self.used[0]) / max(self.train[-1] - self.train[0], 1e-9)

    def before_val_epoch(self, runner: Runner) -> None:
        """Note the begin of an evaluation."""
        del runner
        self.val.append(time.monotonic())

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Note the end of a step of an evaluation."""
        del runner, args, kwargs
        self.val.append(time.monotonic())
        if self.val[-1] > self.end:
            raise _EnoughError


class TimeLimitHook(Hook):
    """Ends a training with the epoch after which no other fits; it is evaluated and saved.

    It does nothing where the epochs were measured rightly, but a machine may get slower.

    Args:
        seconds: For everything from ``started`` on.
        started: `time.monotonic` at the start.
    """

    priority = 'VERY_HIGH'

    def __init__(self, seconds: float, started: float) -> None:
        self.end = started + seconds
        self._last = time.monotonic()

    def before_train(self, runner: Runner) -> None:
        """Start the clock of the first epoch."""
        del runner
        self._last = time.monotonic()

    def after_train_epoch(self, runner: Runner) -> None:
        """Make this epoch the last one if another would be too long."""
        now = time.monotonic()
        epoch, self._last = now - self._last, now
        loop = runner.train_loop
        if now + epoch <= self.end or runner.epoch + 1 >= loop.max_epochs:
            return
        runner.logger.warning(
            f'--time: epochs took longer than measured (the last one {epoch:.0f} s): the training '
            f'ends with epoch {runner.epoch + 1} of {loop.max_epochs}, before its rate has reached '
            'its end'
        )
        loop._max_epochs = runner.epoch + 1  # `stop_training` would leave out the evaluation
