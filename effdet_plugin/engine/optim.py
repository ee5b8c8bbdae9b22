"""Optimiser wrappers that update as the reference does: weight decay in the loss, then two clips.

The reference is google/automl, ``efficientdet/det_model_fn.py`` and ``tf2/train_lib.py`` beside it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from mmdet.registry import HOOKS, OPTIM_WRAPPERS
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from effdet_plugin.errors import ConfigError

DecayMode = Literal['loss', 'decoupled']
# Keys of a parameter group, so that checkpoints hold them.
_LOSS_DECAY = 'loss_decay'
# Each row of a parameter is clipped as if it were a tensor: the reference has one variable for each
# fusion weight, this package one tensor for each node (0.6 % of the first update of a D0).
_CLIP_ROWS = 'clip_rows'


class ReferenceUpdate:
    """What both wrappers do to the gradients between the backward pass and the optimiser's step.

    A mixin before one of mmengine's wrappers, whose ``step`` calls `_clip_grad` after unscaling.
    The reference adds the weight decay to its loss, so that the clip sees it. In a parameter group
    with ``clip_rows=True`` each row of a parameter is clipped separately.
    """

    optimizer: Optimizer
    clip_norm: float | None
    weight_decay_mode: DecayMode

    def _prepare(self, clip_norm: float | None, weight_decay_mode: DecayMode) -> None:
        if clip_norm is not None and clip_norm <= 0:
            raise ConfigError(f'clip_norm={clip_norm} must be positive, or None for no clip')
        if weight_decay_mode not in ('loss', 'decoupled'):
            raise ConfigError(
                f"weight_decay_mode={weight_decay_mode!r} must be 'loss' or 'decoupled'"
            )
        self.clip_norm = clip_norm
        self.weight_decay_mode = weight_decay_mode
        self.clip_grad_kwargs = {'max_norm': clip_norm}  # makes mmengine call `_clip_grad`
        self.grad_norm: Tensor | None = None
        self._move_decay()

    def _move_decay(self) -> None:
        """Keep each group's decay where the mode needs it; the optimiser must not add it again."""
        for group in self.optimizer.param_groups:
            decay = group.get('weight_decay', 0) + group.pop(_LOSS_DECAY, 0)
            if 'weight_decay' not in group:
                continue
            in_loss = self.weight_decay_mode == 'loss'
            group['weight_decay'] = 0.0 if in_loss else decay
            if in_loss:
                group[_LOSS_DECAY] = decay

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the optimiser's state, written in either of the two modes."""
        super().load_state_dict(dict(state_dict))  # type: ignore[misc]
        self._move_decay()

    @torch.no_grad()
    def _clip_grad(self) -> None:
        grads: list[Tensor] = []
        for group in self.optimizer.param_groups:
            used = [p for p in group['params'] if p.grad is not None]
            own = [p.grad for p in used]
            if own and group.get(_LOSS_DECAY):
                # The gradient of decay / 2 * |p|^2 in the loss.
                torch._foreach_add_(own, used, alpha=group[_LOSS_DECAY])
            is_split = group.get(_CLIP_ROWS, False)
            grads += [row for grad in own for row in grad.unbind()] if is_split else own
        if self.clip_norm is not None:
            self.grad_norm = clip_each_then_all(grads, self.clip_norm)


@OPTIM_WRAPPERS.register_module()
class ClippedOptimWrapper(ReferenceUpdate, OptimWrapper):
    """mmengine's ``OptimWrapper`` with the reference's weight decay and clip.

    Args:
        optimizer: Optimiser of the parameters.
        clip_norm: Largest norm of each gradient and of all together; None for no clip.
        weight_decay_mode: ``'loss'``: the groups' ``weight_decay`` is added to the gradients before
            the clip. ``'decoupled'``: the optimiser applies it, after the clip, as in mmdet.
        accumulative_counts: Backward passes per update.

    Raises:
        ConfigError: ``clip_norm`` or ``weight_decay_mode`` is not one of the values above.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        clip_norm: float | None = 10.0,
        weight_decay_mode: DecayMode = 'loss',
        accumulative_counts: int = 1,
    ) -> None:
        OptimWrapper.__init__(self, optimizer, check_counts(accumulative_counts))
        self._prepare(clip_norm, weight_decay_mode)


def has_bfloat16_units() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AMX, AVX-512): training is faster in it.

    A step of Lite0 takes 0.75 of float32's time, one of D0 0.82 (benchmarks/README.md). Without
    these units bfloat16 is slower.
    """
    units = ('_is_amx_tile_supported', '_is_avx512_bf16_supported')  # torch has no public name
    return any(known() for name in units if (known := getattr(torch.cpu, name, None)))


@OPTIM_WRAPPERS.register_module()
class ClippedAmpOptimWrapper(ReferenceUpdate, AmpOptimWrapper):
    """`ClippedOptimWrapper` in mixed precision, on GPUs and (bfloat16) on CPUs.

    On CPUs depthwise convolutions stay in float32, see `keep_depthwise_float32`.

    mmengine's constructor refuses CPUs, so it is replaced; everything else is inherited. Gradients
    of float16 are scaled, those of bfloat16 need no scaling.

    Args:
        optimizer: Optimiser of the parameters, which must be on their device already.
        clip_norm: As in `ClippedOptimWrapper`.
        weight_decay_mode: As in `ClippedOptimWrapper`.
        accumulative_counts: Backward passes per update.
        loss_scale: ``'dynamic'``, a fixed scale, or arguments of ``torch.amp.GradScaler``.
        dtype: ``'float16'`` or ``'bfloat16'``; None means bfloat16 on CPUs, float16 elsewhere.

    Raises:
        ConfigError: A value that cannot be used on this device.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        clip_norm: float | None = 10.0,
        weight_decay_mode: DecayMode = 'loss',
        accumulative_counts: int = 1,
        loss_scale: Literal['dynamic'] | float | dict[str, Any] = 'dynamic',
        dtype: str | None = None,
    ) -> None:
        OptimWrapper.__init__(self, optimizer, check_counts(accumulative_counts))
        self._prepare(clip_norm, weight_decay_mode)
        # `--amp` has to work on CPUs, too, so the device is that of the parameters.
        self.device_type = optimizer.param_groups[0]['params'][0].device.type
        self.cast_dtype = _choose_dtype(dtype, self.device_type)
        self._is_prepared = False
        fixed = loss_scale if isinstance(loss_scale, int | float) else None
        arguments = dict(loss_scale) if isinstance(loss_scale, dict) else {}
        if fixed is not None:
            arguments['init_scale'] = float(fixed)
        self._scale_update_param = fixed
        self.loss_scaler = torch.amp.GradScaler(
            self.device_type, enabled=self.cast_dtype is torch.float16, **arguments
        )

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load the state of optimiser and scaler; a run of another precision has no scaler."""
        state = dict(state_dict)
        if not (self.loss_scaler.is_enabled() and state.get('loss_scaler')):
            state.pop('loss_scaler', None)
        super().load_state_dict(state)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run a forward pass in the lower precision, without exchange while accumulating."""
        if self.device_type == 'cpu' and not self._is_prepared:
            keep_depthwise_float32(model)
            self._is_prepared = True
        with (
            OptimWrapper.optim_context(self, model),
            torch.autocast(self.device_type, dtype=self.cast_dtype),
        ):
            yield


def keep_depthwise_float32(model: nn.Module) -> None:
    """Let the depthwise convolutions of a model compute in float32, whatever autocast says.

    On CPUs with bfloat16 units their backward pass in bfloat16 takes longer than everything else:
    1,637 of the 2,347 ms of a D0 step (512 px, 4 images, two threads of a Xeon with AMX); with
    these 48 layers in float32 the step takes 1,673. Their results stay float32 until the next
    layer that autocast lowers.

    Args:
        model: Changed; a second call changes nothing.
    """
    for module in model.modules():
        is_depthwise = isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels
        if is_depthwise and 'forward' not in vars(module):
            module.forward = partial(_in_float32, module.forward)


def _in_float32(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.autocast('cpu', enabled=False):
        return forward(x.float())


def _choose_dtype(name: str | None, device_type: str) -> torch.dtype:
    """Return the type to compute in; None means the device's usual one."""
    name = name or ('bfloat16' if device_type == 'cpu' else 'float16')
    if name not in ('float16', 'bfloat16'):
        raise ConfigError(f"dtype={name!r} of the optim_wrapper must be 'float16' or 'bfloat16'")
    if name == 'float16' and device_type == 'cpu':
        raise ConfigError("dtype='float16' needs a GPU; on a CPU use dtype='bfloat16' or no --amp")
    return torch.float16 if name == 'float16' else torch.bfloat16


@torch.no_grad()
def clip_each_then_all(grads: list[Tensor], max_norm: float) -> Tensor:
    """Scale gradients in place so that neither one of them nor all together exceed ``max_norm``.

    Nothing waits for the device. An infinity becomes NaN in its own tensor; a NaN makes all of them
    NaN.

    The reference calls ``clip_by_norm`` for each variable, then ``clip_by_global_norm`` for the
    results.

    Args:
        grads: Gradients on one device; the list may be empty.
        max_norm: Largest Euclidean norm, of one and of all.

    Returns:
        Norm of all before the clip, on the device; 0 for no gradients.
    """
    if not grads:
        return torch.zeros(())
    norms = torch.stack(torch._foreach_norm(grads))
    # What the norm of all would be after the first clip, so that both clips are one scaling.
    total = torch.linalg.vector_norm(norms.clamp(max=max_norm))
    factors = max_norm / norms.clamp(min=max_norm) * (max_norm / total.clamp(min=max_norm))
    # A list of scalars that stay on the device.
    torch._foreach_mul_(grads, list(factors.unbind()))
    return torch.linalg.vector_norm(norms)


def check_counts(counts: Any) -> int:
    """Return a number of batches for each update.

    Raises:
        ConfigError: It is no whole number from 1 on; mmengine takes 2.5, and updates at each fifth.
    """
    if isinstance(counts, bool) or not isinstance(counts, int) or counts < 1:
        raise ConfigError(
            f'accumulative_counts={counts!r} of the optim_wrapper must be a whole number of '
            'batches, 1 or more'
        )
    return counts


def check_scaling(auto_scale_lr: Any) -> dict[str, Any]:
    """Return a config's ``auto_scale_lr``, empty where there is none.

    Raises:
        ConfigError: It is enabled and does not say for how many images the rate is.
    """
    scaling = auto_scale_lr or {}
    base = scaling.get('base_batch_size') if isinstance(scaling, dict) else None
    is_size = isinstance(base, int | float) and base > 0
    if not isinstance(scaling, dict) or (scaling.get('enable') and not is_size):
        raise ConfigError(
            f'auto_scale_lr={auto_scale_lr!r} must be dict(enable=..., base_batch_size=N), where '
            'the rate of the config is for N images'
        )
    return scaling


def batches_per_update(optim_wrapper: OptimWrapper | OptimWrapperDict) -> int:
    """Return ``accumulative_counts``; 1 for several optimizers, which mmengine does not count.

    Raises:
        ConfigError: See `check_counts`.
    """
    return check_counts(getattr(optim_wrapper, '_accumulative_counts', 1))


def has_updated(optim_wrapper: OptimWrapper | OptimWrapperDict) -> bool:
    """Whether the batch that was trained last has ended in an update of the weights."""
    return batches_per_update(optim_wrapper) == 1 or optim_wrapper.should_update()


@HOOKS.register_module()
class WholeEpochHook(Hook):
    """Ends each epoch with an update, of the batches that are left.

    mmengine keeps their gradients for the next epoch. No checkpoint holds gradients, so a resumed
    run would lose them.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Count the batches of this epoch alone."""
        if batches_per_update(runner.optim_wrapper) > 1 and isinstance(
            runner.train_loop, EpochBasedTrainLoop
        ):
            # An empty network: mmengine would warn of BN in each epoch, and has done so already.
            runner.optim_wrapper.initialize_count_status(
                nn.Identity(),
                getattr(runner.train_loop, 'skipped', 0),
                len(runner.train_dataloader),
            )
