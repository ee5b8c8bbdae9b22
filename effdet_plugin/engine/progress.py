"""A training's progress as one line on a terminal."""

from collections.abc import Mapping
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """Shows steps done, time left and the loss; for trainings whose log goes to a file only.

    Args:
        interval: Steps between looks at the loss, which make a device wait.
    """

    priority = 'VERY_LOW'

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval
        self.bar: tqdm[Any] | None = None

    def before_train(self, runner: Runner) -> None:
        """Start where the run is."""
        if is_main_process():
            self.bar = tqdm(
                total=runner.max_iters, initial=runner.iter, desc='training', unit='step'
            )

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Count a step; now and then show its loss."""
        if self.bar is None:
            return
        if outputs and 'loss' in outputs and self.every_n_train_iters(runner, self.interval):
            self.bar.set_postfix(loss=f'{float(torch.as_tensor(outputs["loss"])):.3f}')
        self.bar.update()

    def after_train(self, runner: Runner) -> None:
        """Leave the finished line."""
        if self.bar is not None:
            self.bar.close()
