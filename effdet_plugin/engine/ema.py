"""Moving average of weights and BN statistics, with a decay that ramps up."""

from typing import Any

import torch
from mmdet.registry import HOOKS, MODELS
from mmengine.dist import all_reduce_params
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from mmengine.runner import Runner
from torch import Tensor, nn

from effdet_plugin.engine.optim import has_updated


@MODELS.register_module()
class RampUpEMA(ExponentialMovingAverage):
    """Average whose decay in update n = 1, 2, ... is ``min(1 - momentum, (1 + n) / (10 + n))``.

    The average starts from the weights that it is built with, and every update averages: mmengine's
    base class copies at the first. An update is a few kernels, not one or more per tensor.

    Source: google/automl ``efficientdet/det_model_fn.py`` (the graph trainer, which trained the
    published models): averages trainable variables and BN statistics alike. The Keras trainer is
    one update behind (n from 0) and leaves BN statistics out.

    Args:
        model: Network to average; copied.
        momentum: ``1 - decay`` in the long run.
        interval: Training steps per update; n counts the updates.
        device: Device of the average; None means that of ``model``.
        update_buffers: Average floating-point buffers (BN statistics), too; otherwise they are
            copied. Integer buffers are always copied.
    """

    momentum: float
    steps: Tensor

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.0002,
        interval: int = 1,
        device: torch.device | None = None,
        update_buffers: bool = True,
    ) -> None:
        super().__init__(model, momentum, interval, device, update_buffers)
        # It is read at every step, which would wait for a device.
        self.steps = self.steps.cpu()
        self.avg_parameters = self.module.state_dict()
        # A tensor that several names share is listed once here, so that it is not averaged twice.
        parameters = dict(self.module.named_parameters())
        tensors = parameters | dict(self.module.named_buffers())
        names = [name for name in tensors if name in self.avg_parameters]  # not what is not saved
        self._averaged = [
            name
            for name in names
            if tensors[name].is_floating_point() and (update_buffers or name in parameters)
        ]
        self._copied = [name for name in names if name not in self._averaged]

    def weight_of_update(self, update: int) -> float:
        """Return the share of the new weights in update ``update`` (from 1 on)."""
        return max(self.momentum, 1 - (1 + update) / (10 + update))

    @torch.no_grad()
    def copy_from(self, model: nn.Module) -> None:
        """Make the average equal to ``model``, as if it had been built with it."""
        sources = model.state_dict(keep_vars=True)  # without, each tensor is detached
        self._copy(self._averaged, sources)
        self._copy(self._copied, sources)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update the average with the current weights of ``model``."""
        self.steps += 1
        update, skipped = divmod(int(self.steps), self.interval)
        sources = model.state_dict(keep_vars=True)
        if not skipped:
            pairs = self._pairs(self._averaged, sources)
            # One call for all tensors: a loop over hundreds of them costs more than the arithmetic.
            torch._foreach_lerp_(*pairs, self.weight_of_update(update))
        self._copy(self._copied, sources)

    def _copy(self, names: list[str], sources: dict[str, Tensor]) -> None:
        if names:
            torch._foreach_copy_(*self._pairs(names, sources))

    def _pairs(
        self, names: list[str], sources: dict[str, Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        averages = [self.avg_parameters[name] for name in names]
        found = [sources[name] for name in names]
        pairs = zip(found, averages, strict=True)
        # Asked first: `to` is an operator for each tensor even where it has nothing to do.
        return averages, [x if x.device == own.device else x.to(own.device) for x, own in pairs]


@HOOKS.register_module()
class RampUpEMAHook(EMAHook):
    """mmengine's ``EMAHook`` for `RampUpEMA`: the average starts from the training's first weights.

    It counts updates of the weights, not batches: with gradient accumulation there are fewer.
    mmengine copies the model before it is initialised and expects the average to copy again at its
    first update, which this one does not. Where BN is not synchronised, each process has other
    statistics: their averages are made equal at the end of each epoch.

    Args:
        momentum: ``1 - decay`` in the long run.
        update_buffers: Average BN statistics, too.
        **kwargs: Other arguments of ``EMAHook``.
    """

    def __init__(
        self, momentum: float = 0.0002, update_buffers: bool = True, **kwargs: object
    ) -> None:
        super().__init__(
            ema_type=RampUpEMA, momentum=momentum, update_buffers=update_buffers, **kwargs
        )

    def before_train(self, runner: Runner) -> None:
        """Copy the initial weights, unless the average was resumed."""
        super().before_train(runner)
        # mmengine has built the average before the weights were initialised or loaded.
        if int(self.ema_model.steps) == 0:
            self.ema_model.copy_from(self.src_model)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Update the average if the weights were updated."""
        if has_updated(runner.optim_wrapper):
            super().after_train_iter(runner, *args, **kwargs)

    def after_train_epoch(self, runner: Runner) -> None:
        """Make the averaged buffers of all processes equal (no work in one process)."""
        buffers = [b for b in self.ema_model.module.buffers() if b.is_floating_point()]
        all_reduce_params(buffers, op='mean')


def count_updates(hook: EMAHook) -> None:
    """Make an averaging hook of mmengine count updates of the weights, as `RampUpEMAHook` does.

    Args:
        hook: Changed in place; mmengine's own averages after each batch, also where several batches
            make one update.
    """
    after_batch = hook.after_train_iter

    def after_update(runner: Runner, *args: Any, **kwargs: Any) -> None:
        if has_updated(runner.optim_wrapper):
            after_batch(runner, *args, **kwargs)

    hook.after_train_iter = after_update
