"""Build a runner for training or evaluation; report errors of workers in one line."""

import copy
import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS, MODELS, PARAM_SCHEDULERS, RUNNERS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from effdet_plugin.compat import check_compiled_ops
from effdet_plugin.engine.load_weights import LoadMatchingHook
from effdet_plugin.engine.resume import (
    Resumable,
    check_continues,
    check_resumable,
    newest_resumable,
)
from effdet_plugin.engine.runner import AUTO
from effdet_plugin.engine.schedule import check_schedule_types
from effdet_plugin.errors import CheckpointError, ConfigError, UserError
from effdet_plugin.files import write_errors
from effdet_plugin.models.losses import check_channels

RUNNER_TYPE = 'EfficientDetRunner'
_PICKLING_HOOKS = ('CheckpointHook', CheckpointHook)
EXIT_LOST = 3  # exit code of a process that has lost another one
_WORKER = re.compile(
    r'DataLoader worker \(pid.*?\) (exited unexpectedly|is killed by signal: [\w ]+)'
)
# What gloo, NCCL and torch's store say of a process that has ended.
_LOST = re.compile(
    r'Connection (closed|reset|refused)|Broken pipe|gloo/transport|NCCL error|'
    r'Failed to recv, got 0 bytes|TCPStore'
)
_OPTIMIZER_KEYS = ('optimizer', 'constructor', 'paramwise_cfg')


def build_runner(cfg: Config) -> Runner:
    """Build the config's runner, `EfficientDetRunner` unless it names another.

    When it loads weights, a checkpoint of other classes is matched with a line in the log, and one
    of another network is refused. What mmengine logs while it builds goes to the log file only.

    Args:
        cfg: Complete, with a ``work_dir``.

    Raises:
        ConfigError: The launcher cannot be used here.
    """
    _check_launcher(cfg.get('launcher', 'none'))
    complete(cfg)
    # mmengine logs environment, config and hooks in 500 lines: too many for the console.
    with redirect_stdout(io.StringIO()) as hidden:
        runner: Runner = RUNNERS.build(cfg)
    check_compiled_ops(runner.model)
    check_channels(runner.model)
    for handler in runner.logger.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is hidden:
            handler.setStream(sys.stdout)
    if not any(isinstance(hook, LoadMatchingHook) for hook in runner.hooks):
        runner.register_hook(LoadMatchingHook())
    return runner


def complete(cfg: Config) -> None:
    """Complete a config to what the runner dumps, so that a later run can be compared with it.

    Args:
        cfg: Changed in place.
    """
    cfg.setdefault('runner_type', RUNNER_TYPE)
    # mmengine's own hook writes pickles, and not atomically; it is the default where none is given.
    hooks = cfg.get('default_hooks') or {}
    checkpoint = hooks.get('checkpoint', {'type': 'CheckpointHook', 'interval': 1})
    if isinstance(checkpoint, dict) and checkpoint.get('type') in _PICKLING_HOOKS:
        cfg.default_hooks = {**hooks, 'checkpoint': {**checkpoint, 'type': 'AtomicCheckpointHook'}}
    # A visualizer of a fixed name is shared by all runs of a process: it would write to the first.
    (cfg.get('visualizer') or {}).pop('name', None)


def _check_launcher(launcher: str) -> None:
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise ConfigError(
            '--launcher pytorch: this process was not started by torchrun; start several with '
            'tools/dist_train.sh or tools/dist_test.sh'
        )
    if launcher in ('slurm', 'mpi') and not torch.cuda.is_available():
        raise ConfigError(f'--launcher {launcher}: needs GPUs; without one, use torchrun')


def check_device(kind: str) -> None:
    """Check that this process would train on a kind of device: the runner takes the fastest.

    Args:
        kind: ``cpu``, ``cuda`` or ``mps``.

    Raises:
        ConfigError: It would not.
    """
    if (found := get_device()) != kind:
        raise ConfigError(f'--device {kind}: PyTorch would train on {found} here')


def remove_ema_hooks(cfg: Config) -> None:
    """Remove the EMA hooks for an evaluation: the ``state_dict`` is the average already."""
    hooks = cfg.get('custom_hooks') or []
    cfg.custom_hooks = [hook for hook in hooks if not issubclass(HOOKS.get(hook.type), EMAHook)]


def is_first_process() -> bool:
    """Whether this process writes and prints; also right before a process group exists."""
    return int(os.environ.get('RANK', '0')) == 0


@contextmanager
def one_line_errors(work_dir: Path | str | None = None) -> Iterator[None]:
    """Reduce errors of loader workers, of other processes and of the disk to one line.

    Args:
        work_dir: Folder that is written to; for the line of a full disk.

    Raises:
        UserError: A worker's own, one that was killed, or a file that cannot be written.
        SystemExit: Another process of the training has ended, whose message says why.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, UserError):
            raise
        # Of a worker that is killed while it hands over a batch.
        if isinstance(error, ConnectionResetError):
            raise UserError(_killed_worker('has ended in mid-batch')) from error
        with write_errors(error.filename or work_dir or 'a file'):
            raise
    except RuntimeError as error:
        if worker := _WORKER.search(str(error)):
            raise UserError(_killed_worker(worker[1])) from error
        if not _LOST.search(str(error)):
            raise
        print(f'process {os.environ.get("RANK")} has lost another one and ends', file=sys.stderr)
        raise SystemExit(EXIT_LOST) from error
    except UserError as error:
        text = ''.join(map(str, error.args))  # before its line breaks are escaped
        lines = re.findall(rf'^[\w.]*{type(error).__name__}: (.+)$', text, re.MULTILINE)
        if '\n' in text and lines:
            raise type(error)(lines[-1]) from error
        raise


def _killed_worker(reason: str) -> str:
    """Return the line for a loader worker that has ended without an error of its own."""
    if 'Bus error' in reason:
        return (
            'a loader worker has ended (bus error): shared memory is full; enlarge /dev/shm or set '
            'train_dataloader.num_workers=0, then --resume'
        )
    return (
        f'a loader worker {reason}, as happens when memory is short; set '
        'train_dataloader.num_workers or batch_size lower, then --resume'
    )


def check_resume(cfg: Config, given: Resumable | None = None) -> Resumable | None:
    """Check that the checkpoint that a run would be resumed from is of its config's training.

    The runner checks it, too, but has made its log folder by then.

    Args:
        cfg: Complete config; its network and optimizer are built for a comparison.
        given: What ``load_from`` names, where it has been read.

    Returns:
        The checkpoint, for `EfficientDetRunner.already_read`; None if there is none yet.

    Raises:
        CheckpointError: The checkpoint is damaged, or of another network, optimizer, average or
            schedule.
    """
    found = given or _checkpoint(cfg)
    if found is None:
        return None
    # What is built is logged by the runner, which builds it again.
    logger = MMLogger.get_current_instance()
    logger.disabled = True
    try:
        _compare(found.path, found.checkpoint, cfg)
    finally:
        logger.disabled = False
    return found


def _compare(path: Path, checkpoint: dict[str, Any], cfg: Config) -> None:
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet')):
        model = MODELS.build(copy.deepcopy(cfg.model))
        # Without the wrapper itself, which may need a GPU.
        settings = {k: v for k, v in cfg.optim_wrapper.items() if k in _OPTIMIZER_KEYS}
        if 'optimizer' not in settings:  # several optimizers
            return
        wrapper = build_optim_wrapper(model, copy.deepcopy({'type': 'OptimWrapper', **settings}))
        hooks = [HOOKS.get(hook['type']) for hook in cfg.get('custom_hooks') or []]
    has_average = any(isinstance(hook, type) and issubclass(hook, EMAHook) for hook in hooks)
    check_continues(path, checkpoint, model, wrapper, has_average)
    schedules = cfg.get('param_scheduler') or []
    schedules = [schedules] if 'type' in schedules else schedules
    if not isinstance(schedules, dict):  # of several optimizers
        names = [PARAM_SCHEDULERS.get(schedule['type']).__name__ for schedule in schedules]
        try:
            check_schedule_types(checkpoint, names)
        except CheckpointError as error:
            raise CheckpointError(f'{path}: {error}') from None


def _checkpoint(cfg: Config) -> Resumable | None:
    """Return the checkpoint that the runner will choose.

    None if there is none, or it is an address.
    """
    load_from = cfg.get('load_from')
    if cfg.resume == AUTO or not load_from:
        return newest_resumable(cfg.work_dir, log=False)
    return None if '://' in str(load_from) else read_resumable(load_from)


def read_resumable(path: Path | str) -> Resumable:
    """Read the checkpoint that a run is to be resumed from; see `check_resumable`."""
    path = Path(path).expanduser()
    return Resumable(path, [], check_resumable(path))
