"""The arguments of a training, and the switches among them that change its config."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device

from effdet_plugin.config import parse_options, path
from effdet_plugin.config.dataset_nodes import dataset_nodes
from effdet_plugin.config.schema import SIZE_KEY
from effdet_plugin.datasets.cache import parse_cache
from effdet_plugin.engine.optim import has_bfloat16_units
from effdet_plugin.errors import ConfigError
from effdet_plugin.training.start_weights import check_weights

# The optimizer wrapper that --amp uses for each; mmengine's own needs a GPU.
_MIXED_PRECISION = {
    'ClippedOptimWrapper': 'ClippedAmpOptimWrapper',
    'OptimWrapper': 'AmpOptimWrapper',
}
_NEEDS_GPU = 'AmpOptimWrapper'
_FOR_OWN_DATA = 'custom_coco'


@dataclass(frozen=True)
class TrainSettings:
    """The arguments of ``tools/train.py``: mmdet's and some more.

    Attributes:
        config: Path of a config.
        data: Own data, a folder or an annotation file; None: the config's datasets.
        work_dir: Folder of checkpoints and logs; None: the config's, else ``work_dirs/CONFIG``.
        amp: Mixed precision. None: for own data on CPUs that are faster in it.
        auto_scale_lr: Scale the learning rate to the real batch size, even if the config does not.
        resume: Checkpoint to resume from, ``'auto'`` for the newest of the work dir, or None.
        overwrite: Remove an existing run from the work dir.
        launcher: ``none``, ``pytorch``, ``slurm`` or ``mpi``.
        image_size: Replaces the config's; see `effdet_plugin.config.parse_size`.
        cfg_options: See `effdet_plugin.config.merge_options`.
        seed: Random seed; None: the config's, which may draw one.
        network: Replaces the config's network; see `effdet_plugin.config.use_network`.
        fits_batch: Take as many images per step as a GPU's memory allows.
        seconds: Time for all; the number of epochs is lowered to fit. None: no limit.
        cache: Where decoded images are kept for the next epochs; see
            `effdet_plugin.datasets.cache.parse_cache`. None: as the config says.
        weights: What it starts from: ``'coco'``, ``'imagenet'``, ``'none'``, or a checkpoint. None:
            for own data the first of these that can be had, else as the config says.
        log: Beside files: ``'tensorboard'``, ``'wandb'``, ``'mlflow'`` or ``'none'``; empty:
            TensorBoard where it is installed.
    """

    config: Path
    data: Path | None = None
    work_dir: Path | None = None
    amp: bool | None = None
    auto_scale_lr: bool = False
    resume: str | None = None
    overwrite: bool = False
    launcher: str = 'none'
    image_size: str | int | None = None
    cfg_options: Sequence[str] | dict[str, Any] | None = None
    seed: int | None = None
    network: str | None = None
    fits_batch: bool = False
    seconds: float | None = None
    log: Sequence[str] = ()
    cache: str | None = None
    weights: str | None = None


def has_recipe(settings: TrainSettings) -> bool:
    """Whether the data may change the config: ours for own data; others keep what they say."""
    is_ours = settings.config.resolve() == path(_FOR_OWN_DATA).resolve()
    return settings.data is not None and is_ours


def given_paths(settings: TrainSettings) -> list[str]:
    """Return the paths of the config that a person has set."""
    given = [*parse_options(settings.cfg_options or {})]
    if settings.image_size is not None or any(path.endswith(SIZE_KEY) for path in given):
        given.append(SIZE_KEY)
    if settings.auto_scale_lr:
        given.append('optim_wrapper.optimizer.lr')
    return given


def set_switches(cfg: Config, settings: TrainSettings) -> None:
    """Set in a config what the switches among the arguments ask for.

    Raises:
        ConfigError: The config cannot have one of them.
    """
    if settings.amp or (settings.amp is None and _is_faster_in_bfloat16(cfg, settings)):
        use_mixed_precision(cfg)
    if settings.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ConfigError(
                '--auto-scale-lr: the config does not say which batch size its learning rate is '
                'for: set auto_scale_lr=dict(base_batch_size=...)'
            )
        cfg.auto_scale_lr.enable = True
    if settings.cache is not None:
        set_cache(cfg, settings.cache)
    check_weights(settings.weights, given_paths(settings))
    if settings.seed is not None:
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': settings.seed}


def _is_faster_in_bfloat16(cfg: Config, settings: TrainSettings) -> bool:
    return (
        has_recipe(settings)
        and cfg.optim_wrapper.get('type') == 'ClippedOptimWrapper'
        and 'optim_wrapper.type' not in given_paths(settings)
        and get_device() == 'cpu'
        and has_bfloat16_units()
    )


def set_cache(cfg: Config, text: str) -> None:
    """Let the training's datasets keep decoded images.

    Raises:
        ConfigError: The text names no place, or the config has none of our datasets, or several.
    """
    folder, size = parse_cache(text)
    nodes = dataset_nodes((cfg.get('train_dataloader') or {}).get('dataset'))
    ours = [node for node in nodes if node.get('type') == 'EfficientDetDataset']
    if not ours:
        raise ConfigError("--cache: the config's training data are in no EfficientDetDataset")
    below = {id(node) for node in dataset_nodes(ours[0])}
    if any(id(node) not in below for node in ours):
        raise ConfigError(
            "--cache: the config's training data are in several EfficientDetDatasets, and a cache "
            'is of one: set cache in each of them'
        )
    place = 'ram' if folder is None else str(folder.absolute())
    ours[0]['cache'] = place if size is None else f'{place}:{size:g}'


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
