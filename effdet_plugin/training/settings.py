"""The settings of a training, and the complete config made from them."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.device import get_device

from effdet_plugin.config import load
from effdet_plugin.engine.one_run import only_run
from effdet_plugin.engine.resume import check_resumable, check_work_dir, remove_run
from effdet_plugin.engine.runner import AUTO
from effdet_plugin.errors import ConfigError
from effdet_plugin.own_data import (
    DATA_FOLDER,
    DatasetDescription,
    apply_data,
    check_annotation_files,
    set_data,
    write_coco,
)
from effdet_plugin.training.resuming import check_resume
from effdet_plugin.training.running import complete, is_first_process

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


class Prepared(NamedTuple):
    """A complete config.

    Attributes:
        cfg: The config that a runner is built from.
        description: The own data; None if the config's datasets are used.
    """

    cfg: Config
    description: DatasetDescription | None

    def remarks(self) -> list[str]:
        """Return remarks to log before a training, one line each."""
        remarks = self.description.remarks() if self.description else []
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
    cfg = load(settings.config, image_size=settings.image_size, options=settings.cfg_options)
    cfg.launcher = settings.launcher
    cfg.work_dir = str(
        settings.work_dir or cfg.get('work_dir') or f'work_dirs/{settings.config.stem}'
    )
    _set_switches(cfg, settings)
    _set_resume(cfg, settings.resume)
    description = None
    if settings.data is not None:
        description = apply_data(cfg, settings.data, cfg.work_dir, write=False)
    elif is_first_process():
        check_annotation_files(cfg)
    complete(cfg)
    if locks is not None and is_first_process():
        locks.enter_context(only_run(cfg.work_dir))
    if cfg.resume:
        check_resume(cfg)
    else:
        # All processes check, so that none writes into a folder that the first one refuses. They
        # all check the same files: mmengine's runner waits for all before it writes its first.
        if not settings.overwrite:
            check_work_dir(cfg.work_dir, cfg)
        elif is_first_process() and scratch is None:
            remove_run(cfg.work_dir)
    if description is not None:
        folder = (scratch or Path(cfg.work_dir).absolute()) / DATA_FOLDER
        set_data(cfg, description, write_coco(description, folder))
    return Prepared(cfg, description)


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


def _set_resume(cfg: Config, resume: str | None) -> None:
    if resume is None:
        cfg.setdefault('resume', False)
    elif resume == AUTO:
        cfg.resume = AUTO  # the config's load_from stays, for a run without a checkpoint
    else:
        check_resumable(resume)  # fails now and not after minutes of building
        cfg.resume, cfg.load_from = True, resume
