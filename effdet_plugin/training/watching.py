"""What TensorBoard, W&B and MLflow are shown beside the losses."""

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend

from effdet_plugin.engine.hooks import is_time_to_read
from effdet_plugin.errors import DatasetError
from effdet_plugin.evaluation import CocoTwelveMetric
from effdet_plugin.evaluation.coco_twelve import Evaluated
from effdet_plugin.images import read_image
from effdet_plugin.report import Detections
from effdet_plugin.report.collect import facts_of_images
from effdet_plugin.report.examples import draw_pair
from effdet_plugin.training.reporting import image_folder

_FINEST = 3  # pyramid level of the first map
_IMAGES = 4  # of an evaluation
_SCORE_THR = 0.3  # of what is drawn on them


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
