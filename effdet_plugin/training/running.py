"""Build a runner for training or evaluation; report errors of workers in one line."""

import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import torch
from mmdet.registry import HOOKS, RUNNERS
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.runner import Runner

from effdet_plugin.compat import check_compiled_ops
from effdet_plugin.engine.load_weights import LoadMatchingHook
from effdet_plugin.errors import ConfigError, UserError

RUNNER_TYPE = 'EfficientDetRunner'


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


def remove_ema_hooks(cfg: Config) -> None:
    """Remove the EMA hooks for an evaluation: the ``state_dict`` is the average already."""
    hooks = cfg.get('custom_hooks') or []
    cfg.custom_hooks = [hook for hook in hooks if not issubclass(HOOKS.get(hook.type), EMAHook)]


def is_first_process() -> bool:
    """Whether this process writes and prints; also right before a process group exists."""
    return int(os.environ.get('RANK', '0')) == 0


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Reduce the error of a dataloader's worker, which contains a traceback, to its own line."""
    try:
        yield
    except UserError as error:
        lines = re.findall(rf'^[\w.]*{type(error).__name__}: (.+)$', str(error), re.MULTILINE)
        if '\n' in str(error) and lines:
            raise type(error)(lines[-1]) from error
        raise
