"""Train from settings, or check by a dry run that a training would start."""

import math
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.runner import Runner

from effdet_plugin.config import find_sizes, load, set_image_size
from effdet_plugin.engine.one_run import only_run
from effdet_plugin.engine.resume import Resumable, check_work_dir, remove_run
from effdet_plugin.engine.runner import AUTO, EfficientDetRunner, keep_freed_memory
from effdet_plugin.errors import ConfigError
from effdet_plugin.own_data import (
    DATA_FOLDER,
    CheckedFiles,
    DatasetDescription,
    apply_data,
    check_annotation_files,
    dry_run_summary,
    set_data,
    write_coco,
)
from effdet_plugin.training.running import (
    build_runner,
    check_resume,
    complete,
    is_first_process,
    one_line_errors,
    read_resumable,
)
from effdet_plugin.training.time_budget import TimeLimitHook, fit_epochs

_COARSEST_STRIDE = 128  # of the top level, if the config has no anchor strides
# The optimizer wrapper that --amp uses for each; mmengine's own needs a GPU.
_MIXED_PRECISION = {
    'ClippedOptimWrapper': 'ClippedAmpOptimWrapper',
    'OptimWrapper': 'AmpOptimWrapper',
}
_NEEDS_GPU = 'AmpOptimWrapper'


@dataclass(frozen=True)
class TrainSettings:
    """The arguments of ``tools/train.py``: mmdet's and some more.

    Attributes:
        config: Path of a config.
        data: Own data, a folder or an annotation file; None: the config's datasets.
        work_dir: Folder of checkpoints and logs; None: the config's, else ``work_dirs/CONFIG``.
        amp: Mixed precision.
        auto_scale_lr: Scale the learning rate to the real batch size, even if the config does not.
        resume: Checkpoint to resume from, ``'auto'`` for the newest of the work dir, or None.
        overwrite: Remove an existing run from the work dir.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        image_size: Replaces the config's; see `effdet_plugin.config.parse_size`.
        cfg_options: See `effdet_plugin.config.merge_options`.
        seed: Random seed; None: the config's, which may draw one.
        network: Replaces the config's network; see `effdet_plugin.config.use_network`.
        seconds: Time for all; the number of epochs is lowered to fit. None: no limit.
    """

    config: Path
    data: Path | None = None
    work_dir: Path | None = None
    amp: bool = False
    auto_scale_lr: bool = False
    resume: str | None = None
    overwrite: bool = False
    launcher: str = 'none'
    image_size: str | int | None = None
    cfg_options: Sequence[str] | dict[str, Any] | None = None
    seed: int | None = None
    network: str | None = None
    seconds: float | None = None


class Prepared(NamedTuple):
    """A complete config.

    Attributes:
        cfg: The config that a runner is built from.
        description: The own data; None if the config's datasets are used.
        data_remarks: On the config's datasets.
        resumed: The checkpoint to resume from, which the runner takes.
    """

    cfg: Config
    description: DatasetDescription | None
    data_remarks: tuple[str, ...] = ()
    resumed: Resumable | None = None

    def remarks(self) -> list[str]:
        """Return remarks to log before a training, one line each."""
        remarks = self.description.remarks() if self.description else list(self.data_remarks)
        if 'Amp' in self.cfg.optim_wrapper.get('type', '') and get_device() == 'cpu':
            remarks.append('no GPU is available: mixed precision is bfloat16 on the CPU')
        return remarks


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
    _set_switches(cfg, settings)
    resumed = _set_resume(cfg, settings.resume)
    description, checked = None, CheckedFiles([], {})
    folder = (scratch or Path(cfg.work_dir).absolute()) / DATA_FOLDER
    if settings.data is not None:
        description = apply_data(cfg, settings.data, cfg.work_dir, write=False)
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
    if description is not None:
        set_data(cfg, description, write_coco(description, folder))
    checked.write()
    return Prepared(cfg, description, tuple(checked.remarks), resumed)


def _set_switches(cfg: Config, settings: TrainSettings) -> None:
    if settings.amp:
        use_mixed_precision(cfg)
    if settings.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ConfigError(
                '--auto-scale-lr: the config does not say which batch size its learning rate is '
                'for: set auto_scale_lr=dict(base_batch_size=...)'
            )
        cfg.auto_scale_lr.enable = True
    if settings.seed is not None:
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': settings.seed}


def use_mixed_precision(cfg: Config) -> None:
    """Replace the optimizer wrapper by its mixed-precision version.

    Raises:
        ConfigError: The wrapper has no such version, or it needs a GPU and there is none.
    """
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if wrapper not in _MIXED_PRECISION and wrapper not in _MIXED_PRECISION.values():
        raise ConfigError(
            f'--amp: optim_wrapper {wrapper} has no mixed-precision version; use one of '
            f'{", ".join(_MIXED_PRECISION)}'
        )
    cfg.optim_wrapper.type = _MIXED_PRECISION.get(wrapper, wrapper)
    if cfg.optim_wrapper.type == _NEEDS_GPU and get_device() == 'cpu':
        raise ConfigError(
            f"--amp: mmengine's {_NEEDS_GPU} needs a GPU; ClippedOptimWrapper also trains in "
            'bfloat16 on CPUs'
        )


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
    with ExitStack() as locks, one_line_errors(settings.work_dir):
        prepared = prepare(settings, locks=locks)
        locks.enter_context(one_line_errors(prepared.cfg.work_dir))
        seconds = settings.seconds
        lines = [] if seconds is None else [fit_epochs(prepared.cfg, seconds, started)]
        runner = build_runner(prepared.cfg)
        _hand_over(prepared.resumed, runner)
        if seconds is not None:
            runner.register_hook(TimeLimitHook(seconds, started))
        lines.append(f'Config, environment and log are in {runner.log_dir}')
        for line in (*lines, *prepared.remarks()):
            runner.logger.info(line)
        _check_batches(runner)
        if get_device() == 'cpu' and keep_freed_memory():
            runner.logger.info('Freed memory is kept for the next step (glibc): faster')
        runner.train()
        return prepared.cfg


def _hand_over(resumed: Resumable | None, runner: Runner) -> None:
    """Give the runner what has been read, so that it is not read again."""
    if resumed is not None and isinstance(runner, EfficientDetRunner):
        runner.already_read = resumed
        for line in resumed.skipped:
            runner.logger.warning(line)


def dry_run(settings: TrainSettings) -> dict[str, Any]:
    """Read and check the data, build everything, then run one training and one evaluation step.

    Images are few and small. Everything is written to a temporary folder; nothing is downloaded.

    Args:
        settings: See `TrainSettings`.

    Returns:
        ``classes``, ``train_images``, ``val_images``, ``boxes`` (targets, without crowds) and
        ``remarks``.

    Raises:
        UserError: As `train` would.
    """
    with tempfile.TemporaryDirectory(prefix='effdet-dry-run-') as folder, one_line_errors():
        prepared = prepare(settings, scratch=Path(folder))
        shrink(prepared.cfg, Path(folder))
        runner = build_runner(prepared.cfg)
        runner.train()
        remarks = [*prepared.remarks(), *_remarks(runner)]
        if prepared.description is not None:
            return dry_run_summary(prepared.description, []) | {'remarks': remarks}
        return _summary(runner, remarks)


def shrink(cfg: Config, folder: Path) -> None:
    """Shorten a config's training to one step and one evaluation, each of one small image."""
    cfg.work_dir = str(folder / 'run')
    cfg.experiment_name = folder.name  # mmengine's default is the same for runs of one second
    cfg.log_level = 'WARNING'
    if next(find_sizes(cfg), None):
        # Twice the coarsest stride: BN of a single image needs more than one position.
        set_image_size(cfg, 2 * _coarsest_stride(cfg))
    for name in ('train_dataloader', 'val_dataloader'):
        if cfg.get(name):
            loader = cfg[name]
            loader.update(batch_size=1, num_batch_per_epoch=1, num_workers=0)
            loader.update(persistent_workers=False, drop_last=False)
            for key in ('prefetch_factor', 'batch_sampler'):
                loader.pop(key, None)
    cfg.train_cfg = {'type': 'EpochBasedTrainLoop', 'max_epochs': 1, 'val_interval': 1}
    cfg.resume = False
    _disable_downloads(cfg.model.get('backbone') or {})
    cfg.setdefault('default_hooks', {})['checkpoint'] = None
    cfg.visualizer = {'type': 'DetLocalVisualizer', 'vis_backends': []}


def _disable_downloads(backbone: ConfigDict) -> None:
    """Use random weights instead of those that would be downloaded."""
    if backbone.get('pretrained') is True:
        backbone.pretrained = False
    if '://' in str((backbone.get('init_cfg') or {}).get('checkpoint', '')):
        backbone.init_cfg = None


def _coarsest_stride(cfg: Config) -> int:
    head = cfg.model.get('bbox_head') or {}
    strides = (head.get('anchor_generator') or {}).get('strides') or [_COARSEST_STRIDE]
    return int(max(strides))


def _check_batches(runner: Runner) -> None:
    """Raise ConfigError if `drop_last` drops all images, as these are less than a batch."""
    loader = runner.train_loop.dataloader
    if len(loader) == 0:
        images = f'train_dataloader: {len(loader.dataset)} images'
        batch = f'no batch of {loader.batch_size} for each process (drop_last)'
        raise ConfigError(f'{images} make {batch}: set a smaller batch_size')


def _remarks(runner: Runner) -> list[str]:
    """Return remarks on the steps that do not stop a training."""
    loss = runner.message_hub.get_scalar('train/loss').current()
    remarks = [] if math.isfinite(loss) else [f'the loss of the first step is {loss}']
    if runner.val_loop is None:
        remarks.append('there is no validation data: nothing is evaluated during training')
    return remarks


def _summary(runner: Runner, remarks: list[str]) -> dict[str, Any]:
    """Return the counts of the datasets that the runner has built."""
    sets = [_whole(runner.train_dataloader.dataset)]
    if runner.val_loop is not None:
        sets.append(_whole(runner.val_dataloader.dataset))
    train, *rest = sets
    return {
        'classes': list(train.metainfo.get('classes', ())),
        'train_images': len(train),
        'val_images': sum(map(len, rest)),
        'boxes': sum(_count_boxes(dataset) for dataset in sets),
        'remarks': remarks,
    }


def _whole(dataset: Any) -> Any:
    """Return the whole dataset: `num_batch_per_epoch` of `shrink` makes mmengine wrap a slice."""
    return vars(dataset).get('_dataset', dataset)


def _count_boxes(dataset: Any) -> int:
    """Return the number of targets: boxes without ``ignore_flag``."""
    return sum(
        not instance.get('ignore_flag', 0)
        for index in range(len(dataset))
        for instance in dataset.get_data_info(index).get('instances', [])
    )
