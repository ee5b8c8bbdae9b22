"""Hooks that read the loss: to stop at NaN, to log it, to show progress."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import get_rank, is_main_process
from mmengine.hooks import Hook, LoggerHook, RuntimeInfoHook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from effdet_plugin.errors import UserError


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops a training whose loss is NaN or infinite, and names step, process and images.

    The losses stay on the device and are read together, as often as a line is logged and before a
    checkpoint is written: the steps between do not wait for the device.

    Args:
        interval: Steps between two readings; None means the logger's.
    """

    priority = 'ABOVE_NORMAL'  # before the logger and the checkpoint

    def __init__(self, interval: int | None = None) -> None:
        self.interval = interval
        self._losses: list[Tensor] = []
        self._images: list[list[str]] = []

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Keep the loss and the image names of a step, and read all that are kept if it is time.

        Raises:
            UserError: A loss is NaN or infinite.
        """
        if outputs and 'loss' in outputs:  # the sum of all
            # A copy: a compiled step may write its next loss into the same memory.
            self._losses.append(torch.as_tensor(outputs['loss']).detach().clone())
            self._images.append(image_names(data_batch))
        if not self._losses or not is_time_to_read(self, runner, batch_idx):
            return
        losses, images = self._losses, self._images
        self._losses, self._images = [], []
        # The only point that waits for the device.
        finite = torch.stack(losses).isfinite().tolist()
        if all(finite):
            return
        first = finite.index(False)
        step = runner.iter + 1 - len(losses) + first + 1
        raise UserError(
            f'the loss is {float(losses[first])} at step {step} (epoch {runner.epoch + 1}, process '
            f'{get_rank()}; images {", ".join(images[first]) or "unknown"}); try a lower learning '
            'rate or a longer warm-up, and check the boxes of these images'
        )


def is_time_to_read(hook: Any, runner: Runner, batch_idx: int) -> bool:
    """Whether a line is logged at this step, or the epoch ends with it."""
    intervals = (other.interval for other in runner.hooks if isinstance(other, LoggerHook))
    # The hooks of a config are registered after this one is built, so the logger is looked up here.
    interval = getattr(hook, 'interval', None) or min(intervals, default=50)
    is_logged: bool = hook.every_n_inner_iters(batch_idx, interval)
    return is_logged or hook.end_of_epoch(runner.train_dataloader, batch_idx)


def image_names(data_batch: Any) -> list[str]:
    """Return the paths (or ids) of the images of a batch; empty if it does not say."""
    samples = data_batch.get('data_samples') if isinstance(data_batch, Mapping) else None
    metas = [getattr(s, 'metainfo', {}) for s in samples] if isinstance(samples, Sequence) else []
    names = (meta.get('img_path', meta.get('img_id')) for meta in metas)
    return [str(name) for name in names if name is not None]


@HOOKS.register_module()
class DeferredRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's ``RuntimeInfoHook``, but it reads losses from the device only to log them.

    mmengine reads each of them at every step, so that the CPU waits for the device before it can
    send the next step. The recorded losses are the same.

    Args:
        interval: Steps between two readings; None means the logger's.
    """

    def __init__(self, interval: int | None = None) -> None:
        self.interval = interval
        self._outputs: list[dict[str, Any]] = []

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep the losses of a step, and record all that are kept if it is time."""
        self._outputs.append({key: _copy(value) for key, value in (outputs or {}).items()})
        if not is_time_to_read(self, runner, batch_idx):
            return
        kept, self._outputs = self._outputs, []
        # Read in one transfer, then put back among the numbers that are on the host already.
        on_device = [v for step in kept for v in step.values() if isinstance(v, Tensor)]
        read = iter(torch.stack(on_device).tolist() if on_device else [])
        for step in kept:
            for key, value in step.items():
                number = next(read) if isinstance(value, Tensor) else value
                runner.message_hub.update_scalar(f'train/{key}', number)


def _copy(value: Any) -> Any:
    """Return a copy of a number on the device, which the next step must not change."""
    return value.detach().float().reshape(()).clone() if isinstance(value, Tensor) else value


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """Shows steps, time left, loss, rate and memory in one line.

    Args:
        interval: Steps between two readings of the loss, each of which waits for the device; None
            means the logger's, which has just waited for it.
    """

    priority = 'VERY_LOW'

    def __init__(self, interval: int | None = 10) -> None:
        self.interval = interval
        self.bar: tqdm[Any] | None = None

    def before_train(self, runner: Runner) -> None:
        """Open the bar at the step that the run starts from."""
        if is_main_process():
            self.bar = tqdm(
                total=runner.max_iters,
                initial=runner.iter,
                desc='training',
                unit='step',
                dynamic_ncols=True,
            )

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Count a step; show the numbers every ``interval`` steps."""
        if self.bar is None:
            return
        if outputs and 'loss' in outputs and self._is_time(runner, batch_idx):
            self.bar.set_postfix(_shown(runner, outputs['loss']), refresh=False)
        self.bar.update()

    def before_val_epoch(self, runner: Runner) -> None:
        """Say what takes the time."""
        self._say('evaluating')

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Say that the training continues."""
        self._say('training')

    def after_train(self, runner: Runner) -> None:
        """Close the bar, which stays visible."""
        if self.bar is not None:
            self.bar.close()

    def _is_time(self, runner: Runner, batch_idx: int) -> bool:
        if self.interval is None:
            return is_time_to_read(self, runner, batch_idx)
        return bool(self.every_n_train_iters(runner, self.interval))

    def _say(self, what: str) -> None:
        if self.bar is not None:
            self.bar.set_description(what)


def _shown(runner: Runner, loss: Tensor | float) -> dict[str, str]:
    """Return what stands behind a bar: the loss, the rate, the most memory so far."""
    shown = {'loss': f'{float(torch.as_tensor(loss).detach()):.3f}'}
    wrapper = getattr(runner, 'optim_wrapper', None)
    if isinstance(wrapper, OptimWrapper):
        shown['lr'] = f'{wrapper.get_lr()["lr"][0]:.2g}'
    if memory := peak_memory():
        shown['mem'] = f'{memory / 1e9:.1f}GB'
    return shown


def peak_memory() -> int:
    """Return the most bytes that this process has held: of the GPU where it has one, else of RAM.

    0 where the system does not tell.
    """
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == 'win32':
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024
