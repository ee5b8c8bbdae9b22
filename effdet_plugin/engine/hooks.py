"""Watching the loss, and logging it, without making the device wait at every step."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import get_rank
from mmengine.hooks import Hook, LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner
from torch import Tensor

from effdet_plugin.errors import UserError


class _Steps:
    """When a hook that collects must look: whenever a line is logged, and at an epoch's end."""

    def __init__(self, interval: int | None) -> None:
        self.interval = interval

    def are_due(self, hook: Hook, runner: Runner, batch_idx: int) -> bool:
        if self.interval is None:
            loggers = [h for h in runner.hooks if isinstance(h, LoggerHook)]
            self.interval = min([h.interval for h in loggers], default=50)
        due: bool = hook.every_n_inner_iters(batch_idx, self.interval)
        return due or hook.end_of_epoch(runner.train_dataloader, batch_idx)


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops a training whose loss is no longer a number, and names step, process and images.

    The losses stay on the device and are looked at together, as often as a line is logged and
    before a checkpoint is written: nothing waits at the steps between.

    Args:
        interval: Steps between looks; None means the logger's.
    """

    priority = 'ABOVE_NORMAL'  # before the logger and the checkpoint

    def __init__(self, interval: int | None = None) -> None:
        self._steps = _Steps(interval)
        self._losses: list[Tensor] = []
        self._images: list[list[str]] = []

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Note the losses and images of a step, and look at them if it is time.

        Raises:
            UserError: A loss is NaN or infinite.
        """
        if outputs and 'loss' in outputs:  # the sum of all
            self._losses.append(torch.as_tensor(outputs['loss']).detach().clone())
            self._images.append(image_names(data_batch))
        if self._steps.are_due(self, runner, batch_idx):
            self._look(runner)

    def _look(self, runner: Runner) -> None:
        losses, images = self._losses, self._images
        self._losses, self._images = [], []
        if not losses:
            return
        finite = torch.stack(losses).isfinite().tolist()
        if all(finite):
            return
        first = finite.index(False)
        step = runner.iter + 1 - len(losses) + first + 1
        raise UserError(
            f'the loss is {float(losses[first])} at step {step} (epoch {runner.epoch + 1}, process '
            f'{get_rank()}; images {", ".join(images[first]) or "unknown"}); try a lower learning '
            'rate or a longer warm-up, and look at the boxes of these images'
        )


def image_names(data_batch: Any) -> list[str]:
    """Return the paths (or ids) of the images of a batch; empty if it does not say."""
    samples = data_batch.get('data_samples') if isinstance(data_batch, Mapping) else None
    names = []
    for sample in samples if isinstance(samples, Sequence) else []:
        meta = getattr(sample, 'metainfo', {})
        name = meta.get('img_path', meta.get('img_id'))
        if name is not None:
            names.append(str(name))
    return names


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's ``RuntimeInfoHook``, which reads losses from the device only when they are logged.

    mmengine's reads each of them at every step, which makes the CPU wait for the device before it
    can send the next step. The record of the losses is the same.

    Args:
        interval: Steps between readings; None means the logger's.
    """

    def __init__(self, interval: int | None = None) -> None:
        self._steps = _Steps(interval)
        self._outputs: list[dict[str, Any]] = []

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """Note the losses of a step, and record all that are noted if it is time."""
        self._outputs.append({key: _detach(value) for key, value in (outputs or {}).items()})
        if not self._steps.are_due(self, runner, batch_idx):
            return
        noted, self._outputs = self._outputs, []
        on_device = [v for step in noted for v in step.values() if isinstance(v, Tensor)]
        read = iter(torch.stack(on_device).tolist() if on_device else [])
        for step in noted:
            for key, value in step.items():
                number = next(read) if isinstance(value, Tensor) else value
                runner.message_hub.update_scalar(f'train/{key}', number)


def _detach(value: Any) -> Any:
    """A copy of a number on the device, which the next step must not change."""
    return value.detach().float().reshape(()).clone() if isinstance(value, Tensor) else value
