"""``--batch-size auto``: as many images per step as the memory of a GPU takes."""

import io
import tempfile
from collections.abc import Callable, Collection
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.runner import Runner

from effdet_plugin.errors import ConfigError
from effdet_plugin.training.recipe import BATCHES, scaled_rate
from effdet_plugin.training.running import build_runner
from effdet_plugin.training.time_budget import short_training

AUTO = 'auto'
_MEASURED = 2, 4  # images per step, of which the memory is measured
_STEPS = 3  # the second has the optimizer's state, the third the moving average's
_USED = 0.85  # of the free memory: the allocator's gaps, and images of other shapes
_SHARE = 4  # at most every fourth training image is in a step


def fit_batch(cfg: Config, images: int | None, given: Collection[str] = ()) -> str:
    """Measure the memory of some steps, and set the batch size to what fits; the rate follows.

    32 images at most: up to there the config's learning rate holds, and a small dataset needs many
    steps more than large ones. On a CPU, whose memory is not what bounds it, nothing is changed.

    Args:
        cfg: Complete config, changed in place.
        images: For training, at most a quarter of which are in a step; None if not known.
        given: Paths that the person has set.

    Returns:
        A line that says what was measured and chosen.

    Raises:
        ConfigError: Not even one image fits, several processes train, or a run is resumed.
    """
    loader = cfg.train_dataloader
    if cfg.get('launcher', 'none') != 'none':
        raise ConfigError('--batch-size auto: measures one process only; give a number for several')
    if cfg.get('resume'):
        raise ConfigError(
            "--batch-size auto: a resumed run keeps its batch; resume with the config in the run's "
            'folder, which has the number'
        )
    if get_device() != 'cuda':
        return f'--batch-size auto: {loader.batch_size}; a CPU gains nothing from more'
    print('--batch-size auto: measuring some steps', flush=True)
    free = torch.cuda.mem_get_info()[0] * _USED
    small, large = (measure(cfg, number) for number in _MEASURED)
    per_image = (large - small) / (_MEASURED[1] - _MEASURED[0])
    most = BATCHES[1] if images is None else max(1, min(BATCHES[1], images // _SHARE))
    batch = largest_batch(lambda n: small + (n - _MEASURED[0]) * per_image, free, most)
    if not batch:
        raise ConfigError(
            f'--batch-size auto: an image takes {per_image / 2**30:.1f} GB, and '
            f'{free / 2**30:.1f} GB are free; give a smaller --image-size or --model, or --amp'
        )
    loader.batch_size = batch
    rate_key = 'optim_wrapper.optimizer.lr'
    if rate_key not in given:
        optimizer = cfg.optim_wrapper.optimizer
        optimizer.lr = scaled_rate(optimizer.lr, batch)
    return (
        f'--batch-size auto: {batch}, an image takes {per_image / 2**20:.0f} MB of the '
        f'{free / 2**30:.1f} GB that are free'
    )


def largest_batch(memory: Callable[[int], float], free: float, most: int) -> int:
    """Return the largest batch that fits: 1, 2, or a multiple of 4; 0 where none does.

    Args:
        memory: Bytes of a step by its number of images.
        free: Bytes.
        most: Images.
    """
    tried = (n for n in (1, 2, *range(4, most + 1, 4)) if n <= most)
    return max((n for n in tried if memory(n) <= free), default=0)


def measure(cfg: Config, images: int) -> float:
    """Return the bytes that steps of so many images take at most; needs a GPU.

    The steps are those of a training of its own, in a temporary folder, that is thrown away.
    """
    with tempfile.TemporaryDirectory(prefix='effdet-batch-') as folder:
        with redirect_stdout(io.StringIO()):  # pycocotools prints
            trial = short_training(cfg, Path(folder), {})
            trial.train_dataloader.batch_size = images
            trial.val_dataloader = trial.val_cfg = trial.val_evaluator = None
            runner = build_runner(trial)
            runner.register_hook(_EndHook())
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            with suppress(_EnoughError):
                runner.train()
        peak = torch.cuda.max_memory_allocated() - before
        del runner
        torch.cuda.empty_cache()
    return float(peak)


class _EnoughError(Exception):
    """Ends a training whose memory is measured."""


class _EndHook(Hook):
    """Ends a training after some steps."""

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """End it."""
        del args, kwargs
        if runner.iter + 1 >= _STEPS:
            raise _EnoughError
