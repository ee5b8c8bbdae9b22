"""Train from settings."""

import io
import os
import time
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner

from effdet_plugin.config import load
from effdet_plugin.config.dataset_nodes import dataset_nodes
from effdet_plugin.config.schema import SIZE_KEY
from effdet_plugin.datasets.cache import cache_in_words
from effdet_plugin.engine.one_run import only_run
from effdet_plugin.engine.resume import Resumable, check_work_dir, remove_run
from effdet_plugin.engine.runner import AUTO, EfficientDetRunner, keep_freed_memory
from effdet_plugin.engine.stopping import StopHook
from effdet_plugin.errors import ConfigError
from effdet_plugin.own_data import (
    DATA_FOLDER,
    CheckedFiles,
    DatasetDescription,
    apply_data,
    check_annotation_files,
    set_data,
    write_coco,
)
from effdet_plugin.training.batch_size import fit_batch
from effdet_plugin.training.console import plain_console, without_noise
from effdet_plugin.training.log_backends import add_backends, check_backends, close_backends
from effdet_plugin.training.recipe import MOMENTA, Choice, apply_recipe, lowered
from effdet_plugin.training.reporting import command
from effdet_plugin.training.running import (
    build_runner,
    check_resume,
    complete,
    is_first_process,
    one_line_errors,
    read_resumable,
)
from effdet_plugin.training.settings import (
    TrainSettings,
    given_paths,
    has_recipe,
    set_switches,
)
from effdet_plugin.training.speaking import SpeakHook, end
from effdet_plugin.training.start_weights import Start, check_agreement, start_for
from effdet_plugin.training.time_budget import THREADS, TimeLimitHook, fit_epochs
from effdet_plugin.training.watching import WatchHook

_RECIPE_CHANGES = ('train_cfg', 'param_scheduler', 'optim_wrapper', 'model', SIZE_KEY)


class Prepared(NamedTuple):
    """A complete config.

    Attributes:
        cfg: The config that a runner is built from.
        description: The own data; None if the config's datasets are used.
        data_remarks: On the config's datasets.
        resumed: The checkpoint to resume from, which the runner takes.
        choices: What the own data have decided, and advice.
        start: The weights that were chosen; None where the config names them.
    """

    cfg: Config
    description: DatasetDescription | None
    data_remarks: tuple[str, ...] = ()
    resumed: Resumable | None = None
    choices: tuple[Choice, ...] = ()
    start: Start | None = None

    def remarks(self) -> list[str]:
        """Return remarks to log before a training, one line each."""
        remarks = self.description.remarks() if self.description else list(self.data_remarks)
        nodes = dataset_nodes(self.cfg.train_dataloader.get('dataset'))
        return remarks + [
            cache_in_words(node['cache']) for node in nodes if node.get('cache') is not None
        ]


def prepare(
    settings: TrainSettings, scratch: Path | None = None, locks: ExitStack | None = None
) -> Prepared:
    """Make the complete config of a training, and check its data.

    Args:
        settings: See `TrainSettings`.
        scratch: Folder for converted annotations in a dry run; the work dir is then checked but not
            changed. None: they go into the work dir.
        locks: Gets the lock of the work dir, which is taken before anything is written there.

    Raises:
        UserError: The config, an option, the data or the work dir cannot be used.
    """
    cfg = load(
        settings.config,
        image_size=settings.image_size,
        options=settings.cfg_options,
        network=settings.network,
    )
    cfg.launcher = settings.launcher
    cfg.work_dir = str(
        settings.work_dir or cfg.get('work_dir') or f'work_dirs/{settings.config.stem}'
    )
    set_switches(cfg, settings)
    resumed = _set_resume(cfg, settings.resume)
    description, checked = None, CheckedFiles([], {})
    choices: list[Choice] = []
    folder = (scratch or Path(cfg.work_dir).absolute()) / DATA_FOLDER
    if settings.data is not None:
        description = apply_data(cfg, settings.data, cfg.work_dir, write=False)
        given = given_paths(settings)
        if not has_recipe(settings):
            given += _RECIPE_CHANGES
        if settings.seconds is not None:  # what fits is measured later, and is short
            given += MOMENTA
        processes = int(os.environ.get('WORLD_SIZE', '1'))
        choices = apply_recipe(cfg, description, given, processes)
    else:
        checked = check_annotation_files(cfg, folder=folder, is_first=is_first_process())
    complete(cfg)
    if locks is not None and is_first_process():
        locks.enter_context(only_run(cfg.work_dir))
    if cfg.resume:
        resumed = check_resume(cfg, resumed)
    else:
        # All processes check, so that none writes into a folder that the first one refuses. They
        # all check the same files: mmengine's runner waits for all before it writes its first.
        if not settings.overwrite:
            check_work_dir(cfg.work_dir, cfg)
        elif is_first_process() and scratch is None:
            remove_run(cfg.work_dir)
    start = None
    if settings.weights is not None or settings.data is not None:
        start = start_for(
            cfg, settings.weights, given_paths(settings), resumed, network=not scratch
        )
    if description is not None:
        set_data(cfg, description, write_coco(description, folder))
    checked.write()
    return Prepared(cfg, description, tuple(checked.remarks), resumed, tuple(choices), start)


def _set_resume(cfg: Config, resume: str | None) -> Resumable | None:
    """Set what to resume from; return it where it is named: read now, not after minutes."""
    if resume is None:
        cfg.setdefault('resume', False)
    elif resume == AUTO:
        cfg.resume = AUTO  # the config's load_from stays, for a run without a checkpoint
    else:
        cfg.resume, cfg.load_from = True, resume
        return read_resumable(resume)
    return None


def train(settings: TrainSettings) -> Config:
    """Train a detector.

    Args:
        settings: See `TrainSettings`.

    Returns:
        The complete config; its ``work_dir`` has the checkpoints.

    Raises:
        UserError: One line that says what is wrong, where, and what to do.
    """
    started = time.monotonic()
    check_backends(settings.log)
    with ExitStack() as locks, one_line_errors(settings.work_dir):
        prepared = prepare(settings, locks=locks)
        locks.enter_context(one_line_errors(prepared.cfg.work_dir))
        if get_device() == 'cpu':
            keep_freed_memory()  # before steps are timed: they take two thirds of the time
        seconds, given = settings.seconds, given_paths(settings)
        threads = torch.get_num_threads()
        lines = []
        if settings.fits_batch:
            own = prepared.description
            lines.append(fit_batch(prepared.cfg, len(own.train) if own else None, given))
        if seconds is not None:
            wanted = prepared.cfg.train_cfg.get('max_epochs')
            locks.callback(torch.set_num_threads, threads)  # which a trial may lower
            lines.append(fit_epochs(prepared.cfg, seconds, started))
        runner = build_runner(prepared.cfg)
        check_agreement(prepared.start)
        _hand_over(prepared.resumed, runner)
        if seconds is not None:
            runner.register_hook(TimeLimitHook(seconds, started))
        speaking = SpeakHook(prepared.description, given, prepared.choices, prepared.start)
        locks.enter_context(without_noise(runner))
        locks.push(lambda kind, *_: close_backends(runner) if kind else None)
        add_backends(runner, settings.log)
        runner.register_hook(WatchHook())
        runner.register_hook(speaking)
        is_lowered = torch.get_num_threads() < threads  # sums in another order, if not resumed so
        environment = f'{THREADS}={torch.get_num_threads()} ' if is_lowered else ''
        stopping = StopHook(environment + _resume_command(prepared.cfg))
        runner.register_hook(stopping)
        locks.callback(stopping.release)
        locks.enter_context(plain_console(runner))
        for line in (*lines, *prepared.remarks()):
            runner.logger.info(line)
        with redirect_stdout(io.StringIO()):  # pycocotools prints while the datasets are built
            _check_batches(runner)
        if seconds is not None and runner.max_epochs < wanted:
            speaking.choices = lowered(prepared.choices, runner.max_epochs, runner.max_iters)
        runner.train()
        if is_first_process():
            for line in end(runner, prepared.cfg, speaking, time.monotonic() - started):
                runner.logger.info(line)
        return prepared.cfg


def _resume_command(cfg: Config) -> str:
    """Return what resumes a run: the config that is dumped holds data and all options."""
    if cfg.launcher != 'none':
        return 'the same command with --resume'
    return command('train', Path(cfg.work_dir) / Path(cfg.filename).name, '--resume')


def _hand_over(resumed: Resumable | None, runner: Runner) -> None:
    """Give the runner what has been read, so that it is not read again."""
    if resumed is not None and isinstance(runner, EfficientDetRunner):
        runner.already_read = resumed
        for line in resumed.skipped:
            runner.logger.warning(line)


def _check_batches(runner: Runner) -> None:
    """Raise ConfigError if `drop_last` drops all images, as these are less than a batch."""
    loader = runner.train_loop.dataloader
    _ = runner.val_loop  # built, too
    if len(loader) == 0:
        images = f'train_dataloader: {len(loader.dataset)} images'
        batch = f'no batch of {loader.batch_size} for each process (drop_last)'
        raise ConfigError(f'{images} make {batch}: set a smaller batch_size')
