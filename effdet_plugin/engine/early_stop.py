"""End a training whose AP has not risen for long; the count survives a resume."""

import math
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import EarlyStoppingHook
from mmengine.runner import Runner

_COUNTED = 'evaluations_without_rise'  # in the message hub, which checkpoints carry


@HOOKS.register_module()
class StopWhenFlatHook(EarlyStoppingHook):
    """mmengine's hook with a patience that follows the length of the training.

    A cosine schedule gains most in its last third, so that the patience is long: it ends trainings
    whose best checkpoint lies far back, not those that rest.

    Args:
        monitor: Metric, of which more is better.
        share: Of all evaluations, which may pass without a rise.
        least: Evaluations that may, however short the training is.
    """

    def __init__(self, monitor: str = 'coco/bbox_mAP', share: float = 0.4, least: int = 8) -> None:
        super().__init__(monitor=monitor, rule='greater', min_delta=0.0)
        self.share, self.least = share, least

    def before_train(self, runner: Runner) -> None:
        """Set the patience, and go on counting where a resumed run had arrived."""
        loop = runner.train_loop
        evaluations = loop.max_epochs / getattr(loop, 'val_interval', 1)
        self.patience = max(self.least, math.ceil(self.share * evaluations))
        kept = runner.message_hub.runtime_info.get(_COUNTED)
        if kept is not None:
            self.wait_count, self.best_score = int(kept[0]), float(kept[1])

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Count, and end the training if it is time."""
        if not metrics or self.monitor not in metrics:  # of another evaluator
            return
        super().after_val_epoch(runner, metrics)
        runner.message_hub.update_info(_COUNTED, [self.wait_count, float(self.best_score)])
