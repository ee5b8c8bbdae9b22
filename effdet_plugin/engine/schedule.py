"""The reference's learning rate as a function of the step."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from mmdet.registry import PARAM_SCHEDULERS
from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler.param_scheduler import INF, OptimizerType

from effdet_plugin.errors import ConfigError

Decay = Literal['cosine', 'stepwise', 'polynomial', 'constant']
DECAYS = ('cosine', 'stepwise', 'polynomial', 'constant')


def lr_factor(
    step: int,
    *,
    decay: Decay,
    warmup_steps: int,
    total_steps: int,
    warmup_factor: float,
    milestone_steps: Sequence[int] = (),
    gamma: float = 0.1,
    power: float = 0.9,
    shifted: bool = False,
) -> float:
    """Return the learning rate of a step over the base rate.

    Args:
        step: Step, from 0 on.
        decay: What follows the warm-up.
        warmup_steps: Steps of the linear warm-up.
        total_steps: Steps of the training; the polynomial stays where it ends.
        warmup_factor: Factor at step 0.
        milestone_steps: Steps of ``stepwise`` at which the factor is multiplied by ``gamma``.
        gamma: See ``milestone_steps``.
        power: Exponent of ``polynomial``.
        shifted: Count the steps of the cosine from the end of the warm-up, so that it begins at 1
            and ends at 0. The reference counts from 0 over ``total - warmup`` steps: it reaches 0
            one warm-up before the end and rises again a little.
    """
    if step < warmup_steps:
        return warmup_factor + (1 - warmup_factor) * step / warmup_steps
    if decay == 'cosine':
        span = max(1, total_steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps * shifted) / span))
    if decay == 'stepwise':
        return float(gamma ** sum(step >= milestone for milestone in milestone_steps))
    if decay == 'polynomial':
        return float(max(0.0, 1 - step / max(1, total_steps)) ** power)
    return 1.0


@PARAM_SCHEDULERS.register_module()
class ReferenceLR(_ParamScheduler):
    """Linear warm-up, then one of the reference's decays, as a closed form of the step.

    In a config the times are epochs and ``convert_to_iter_based=True`` lets the rate change at
    every step; the length of the training is the train loop's unless ``max_epochs`` says another.
    Built by hand, give ``steps_per_epoch``, which may be a fraction: times become
    ``int(epochs * steps_per_epoch)``.

    Source: google/automl ``efficientdet/det_model_fn.py`` and ``tf2/train_lib.py``. There the rate
    is 0.08 and the warm-up begins at 0.008 per 64 images (factor 0.1); the Keras trainer does not
    scale the beginning with the batch (0.05 at batch 128).

    Args:
        optimizer: Optimiser or wrapper whose groups' initial rates are scaled.
        decay: ``'cosine'``, ``'stepwise'``, ``'polynomial'`` or ``'constant'``.
        warmup_epochs: Length of the linear warm-up.
        warmup_factor: Share of the rate at the first step.
        milestones: Epochs of ``stepwise``.
        gamma: Factor at each milestone.
        power: Exponent of ``polynomial``.
        shifted: Begin the cosine at the end of the warm-up, which the reference does not.
        max_epochs: Length of the training; None means ``end``.
        steps_per_epoch: Steps per epoch; set by ``convert_to_iter_based``.
        param_name: What to schedule.
        begin: First step of the schedule.
        end: Step at which it stops, and the length of the training if ``max_epochs`` is None.
        last_step: As in mmengine.
        by_epoch: Whether a step is an epoch.
        verbose: Log each change.

    Raises:
        ConfigError: An unknown decay, or no length where the decay needs one.
    """

    def __init__(
        self,
        optimizer: OptimizerType,
        decay: Decay = 'cosine',
        warmup_epochs: float = 1.0,
        warmup_factor: float = 0.1,
        milestones: Sequence[float] = (200, 250),
        gamma: float = 0.1,
        power: float = 0.9,
        shifted: bool = False,
        max_epochs: float | None = None,
        steps_per_epoch: float = 1.0,
        param_name: str = 'lr',
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        if decay not in DECAYS:
            raise ConfigError(f'decay={decay!r} of ReferenceLR must be one of {", ".join(DECAYS)}')
        if decay in ('cosine', 'polynomial') and max_epochs is None and end == INF:
            raise ConfigError(f'decay={decay!r} of ReferenceLR needs max_epochs (or end)')
        total = end - begin if max_epochs is None else int(max_epochs * steps_per_epoch)
        self.curve: dict[str, Any] = {
            'decay': decay,
            'warmup_steps': int(warmup_epochs * steps_per_epoch),
            'total_steps': total,
            'warmup_factor': warmup_factor,
            'milestone_steps': [int(epoch * steps_per_epoch) for epoch in milestones],
            'gamma': gamma,
            'power': power,
            'shifted': shifted,
        }
        super().__init__(optimizer, param_name, begin, end, last_step, by_epoch, verbose)

    @classmethod
    def build_iter_from_epoch(
        cls,
        *args: Any,
        epoch_length: int,
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = True,
        **kwargs: Any,
    ) -> 'ReferenceLR':
        """Build a schedule that changes at every step from one given in epochs.

        Args:
            *args: Arguments of the class.
            epoch_length: Steps per epoch.
            begin: First epoch.
            end: Epoch at which it stops.
            by_epoch: True; mmengine passes what the config says.
            **kwargs: Arguments of the class.
        """
        assert by_epoch, 'mmengine converts epoch-based schedules only'
        kwargs.setdefault('steps_per_epoch', epoch_length)
        kwargs['begin'] = begin * epoch_length
        kwargs['end'] = end if end == INF else end * epoch_length
        kwargs['by_epoch'] = False
        return cls(*args, **kwargs)

    def _get_value(self) -> list[float]:
        factor = lr_factor(self.last_step, **self.curve)
        return [base * factor for base in self.base_values]
