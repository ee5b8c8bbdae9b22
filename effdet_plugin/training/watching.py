"""TensorBoard, W&B and MLflow by mmengine's backends, and what they are shown beside the losses."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import VISBACKENDS
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend

from effdet_plugin.engine.hooks import is_time_to_read
from effdet_plugin.errors import ConfigError, DatasetError, InstallError
from effdet_plugin.evaluation import CocoTwelveMetric
from effdet_plugin.evaluation.coco_twelve import Evaluated
from effdet_plugin.images import read_image
from effdet_plugin.report import Detections
from effdet_plugin.report.collect import facts_of_images
from effdet_plugin.report.examples import draw_pair
from effdet_plugin.training.reporting import image_folder

DEFAULT = 'tensorboard'  # where it is installed
_BACKENDS = {
    'tensorboard': 'TensorboardVisBackend',
    'wandb': 'WandbVisBackend',
    'mlflow': 'MLflowVisBackend',
}
_FINEST = 3  # pyramid level of the first map
_IMAGES = 4  # of an evaluation
_SCORE_THR = 0.3  # of what is drawn on them


def add_backends(runner: Runner, names: Sequence[str] = ()) -> None:
    """Let a run log to these, and to TensorBoard where that is installed.

    The config does not change: a run may be resumed where they are not installed.

    Args:
        runner: Built.
        names: ``'tensorboard'``, ``'wandb'`` or ``'mlflow'``; ``'none'``: not even TensorBoard.

    Raises:
        ConfigError: Unknown name.
        InstallError: The package is missing.
    """
    check_backends(names)
    wanted = [name for name in names if name != 'none']
    if not names and find_spec(DEFAULT) is not None:
        wanted = [DEFAULT]
    if not is_main_process():
        return
    own: dict[str, Any] = runner.visualizer._vis_backends
    folder = Path(runner.log_dir) / 'vis_data'
    for name in wanted:
        kind = _BACKENDS[name]
        if kind not in own:
            more: dict[str, Any] = {}
            if name == 'wandb':
                more['init_kwargs'] = {'project': Path(runner.work_dir).name}
            if name == 'mlflow':
                more['exp_name'] = Path(runner.work_dir).name
            own[kind] = VISBACKENDS.build({'type': kind, 'save_dir': str(folder), **more})


def check_backends(names: Sequence[str]) -> None:
    """Check that a run can log to these; see `add_backends`."""
    for name in names:
        if name not in (*_BACKENDS, 'none'):
            raise ConfigError(f'--log {name}: choose one of {", ".join(_BACKENDS)}, none')
        if name != 'none' and find_spec(name) is None:
            raise InstallError(f'--log {name}: not installed; pip install {name}')


class WatchHook(Hook):
    """Logs positives of each level, the gradient's norm, and some images with boxes and truth.

    Numbers are read from the device at the steps at which the losses are, and are counted at these
    only. Images go to the backends that have a viewer, not into the work dir.
    """

    priority = 'VERY_LOW'  # the losses have been read

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Let the head count its positives in a step that is logged."""
        head = _head(runner)
        if head is not None:
            head.counts_positives = is_time_to_read(self, runner, batch_idx)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Log the numbers of a step."""
        if not is_main_process() or not is_time_to_read(self, runner, batch_idx):
            return
        numbers: dict[str, float] = {}
        norm = getattr(runner.optim_wrapper, 'grad_norm', None)
        if norm is not None:
            numbers['gradient_norm'] = float(norm)
        positives = getattr(_head(runner), 'positives', None)
        if positives is not None:
            for level, number in enumerate(positives.tolist(), start=_FINEST):
                numbers[f'positives/P{level}'] = float(number)
        if numbers:
            runner.visualizer.add_scalars(numbers, step=runner.iter + 1)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Show some images with predictions and truth."""
        backends = getattr(runner.visualizer, '_vis_backends', {}).values()
        viewers = [one for one in backends if not isinstance(one, LocalVisBackend)]
        kept = [
            metric.kept
            for metric in getattr(runner.val_evaluator, 'metrics', [])
            if isinstance(metric, CocoTwelveMetric) and metric.kept is not None
        ]
        if not viewers or not kept or not is_main_process():
            return
        folder = image_folder(runner.cfg.val_dataloader.dataset)
        for number, drawing in enumerate(drawings(kept[0], folder)):
            for one in viewers:
                one.add_image(f'val/{number}', drawing, step=runner.epoch)


def drawings(kept: Evaluated, folder: Path) -> list[np.ndarray[Any, Any]]:
    """Draw the first images that were evaluated, prediction left, truth right.

    Args:
        kept: The evaluation.
        folder: What the names of the images are relative to.
    """
    ids = kept.image_ids[:_IMAGES]
    few = kept._replace(
        image_ids=ids, results=[one for one in kept.results if one['image_id'] in set(ids)]
    )
    images, _ = facts_of_images(kept.coco, Detections.of(few), kept.category_ids, _SCORE_THR)
    drawn = []
    for image in images:
        try:
            pixels = read_image(folder / image.file)
        except DatasetError:  # read by another backend than files
            continue
        drawn.append(draw_pair(pixels, image.found, image.truth, kept.classes))
    return drawn


def _head(runner: Runner) -> Any:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    head = getattr(model, 'bbox_head', None)
    return head if hasattr(head, 'counts_positives') else None
