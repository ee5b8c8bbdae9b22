"""What a command line says about a training, and the config that it comes to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.device import get_device

from effdet_plugin.config import load
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
from effdet_plugin.training.running import complete, is_first_process

# What --amp puts in the place of an optimizer wrapper, and whether that works without a GPU.
_MIXED_PRECISION = {
    'ClippedOptimWrapper': 'ClippedAmpOptimWrapper',
    'OptimWrapper': 'AmpOptimWrapper',
}
_NEEDS_GPU = 'AmpOptimWrapper'


@dataclass(frozen=True)
class TrainSettings:
    """The arguments of ``tools/train.py``, which are mmdet's own and some more.

    Attributes:
        config: Path of a config.
        data: A person's own data: folder or annotation file; None takes the config's data sets.
        work_dir: Where checkpoints and logs go; None: the config's, else ``work_dirs/CONFIG``.
        amp: Mixed precision.
        auto_scale_lr: Scale the learning rate to the real batch size, also if the config does not.
        resume: A checkpoint to go on from, ``'auto'`` for the newest of the work dir, or None.
        overwrite: The work dir may hold a run, which is given up.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        image_size: In place of the config's; see `effdet_plugin.config.parse_size`.
        cfg_options: See `effdet_plugin.config.merge_options`.
        seed: Of everything random; None keeps the config's, which may draw one.
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
        cfg: What a runner is built from.
        description: Of a person's own data; None if the config's data sets are taken.
    """

    cfg: Config
    description: DatasetDescription | None

    def remarks(self) -> list[str]:
        """Return what is worth saying before a training, one line each."""
        remarks = self.description.remarks() if self.description else []
        if 'Amp' in self.cfg.optim_wrapper.get('type', '') and get_device() == 'cpu':
            remarks.append('there is no GPU: mixed precision is bfloat16 on the CPU')
        return remarks


def prepare(settings: TrainSettings, scratch: Path | None = None) -> Prepared:
    """Make the complete config of a training, and look at its data.

    Args:
        settings: What the command line says.
        scratch: Where converted annotations go in place of the work dir, which is then looked at
            and not touched: for a trial.

    Raises:
        UserError: The config, an option, the data or the work dir cannot be used.
    """
    cfg = load(settings.config, image_size=settings.image_size, options=settings.cfg_options)
    cfg.launcher = settings.launcher
    cfg.work_dir = str(settings.work_dir or cfg.get('work_dir') or _default_work_dir(settings))
    _set_switches(cfg, settings)
    _set_resume(cfg, settings.resume)
    description = None
    if settings.data is not None:
        description = apply_data(cfg, settings.data, cfg.work_dir, write=False)
    elif is_first_process():
        check_annotation_files(cfg)
    complete(cfg)
    _settle_work_dir(cfg, settings.overwrite, is_trial=scratch is not None)
    if description is not None:
        folder = (scratch or Path(cfg.work_dir).absolute()) / DATA_FOLDER
        set_data(cfg, description, write_coco(description, folder))
    return Prepared(cfg, description)


def _default_work_dir(settings: TrainSettings) -> Path:
    return Path('work_dirs') / settings.config.stem


def _settle_work_dir(cfg: Config, overwrite: bool, is_trial: bool) -> None:
    """Refuse a work dir that holds a run, unless it goes on or is given up.

    All processes look, so that none writes into a folder that the first one refuses. What they look
    for is written when all have: mmengine's runner waits for the others before its first file.
    """
    if cfg.resume:
        return
    if not overwrite:
        check_work_dir(cfg.work_dir, cfg)
    elif is_first_process() and not is_trial:
        remove_run(cfg.work_dir)


def _set_switches(cfg: Config, settings: TrainSettings) -> None:
    if settings.amp:
        use_mixed_precision(cfg)
    if settings.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ConfigError(
                '--auto-scale-lr: the config does not say for which batch its learning rate is: '
                'give it auto_scale_lr=dict(base_batch_size=...)'
            )
        cfg.auto_scale_lr.enable = True
    if settings.seed is not None:
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': settings.seed}


def use_mixed_precision(cfg: Config) -> None:
    """Replace the optimizer wrapper by the same one in mixed precision.

    Raises:
        ConfigError: The wrapper has no such form, or not without a GPU.
    """
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind not in _MIXED_PRECISION and kind not in _MIXED_PRECISION.values():
        raise ConfigError(
            f'--amp: optim_wrapper is {kind}, which has no form in mixed precision; those that '
            f'have are {", ".join(_MIXED_PRECISION)}'
        )
    cfg.optim_wrapper.type = _MIXED_PRECISION.get(kind, kind)
    if cfg.optim_wrapper.type == _NEEDS_GPU and get_device() == 'cpu':
        raise ConfigError(
            f"--amp: mmengine's {_NEEDS_GPU} needs a GPU; ClippedOptimWrapper trains in bfloat16 "
            'on CPUs, too'
        )


def _set_resume(cfg: Config, resume: str | None) -> None:
    if resume is None:
        cfg.setdefault('resume', False)
        return
    if resume == AUTO:
        cfg.resume = AUTO  # what the config loads is for a run that finds nothing to go on from
        return
    check_resumable(resume)  # refused now and not after minutes of building
    cfg.resume, cfg.load_from = True, resume
