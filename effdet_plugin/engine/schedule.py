"""The reference's learning rate as a function of the step."""

import logging
import math
import reprlib
from collections.abc import Sequence
from typing import Any, Literal

from mmdet.registry import PARAM_SCHEDULERS
from mmengine.logging import print_log
from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler.param_scheduler import INF, OptimizerType

from effdet_plugin.errors import ConfigError

Decay = Literal['cosine', 'stepwise', 'polynomial', 'constant']
DECAYS = ('cosine', 'stepwise', 'polynomial', 'constant')
# How far a schedule is; the rest of its state is its plan.
_PROGRESS = ('last_step', '_global_step', '_last_value')


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

    A run that goes on with another config follows the plan of the new one, from the epoch that it
    has reached.

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
        self.steps_per_epoch = steps_per_epoch
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

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state's progress; the plan stays this schedule's own.

        mmengine takes the plan from the state, too: a training made longer than it was would spend
        the added epochs at the end of the old curve.

        Args:
            state_dict: Of `state_dict`.
        """
        here, there = _plan(self.state_dict()), _plan(state_dict)
        there.setdefault('steps_per_epoch', self.steps_per_epoch)  # older checkpoints do not say
        changes = [
            f'{key} is {reprlib.repr(there.get(key))} there and {reprlib.repr(value)} here'
            for key, value in here.items()
            if there.get(key) != value
        ]
        if not changes:
            self.__dict__.update({key: state_dict[key] for key in _PROGRESS})
            return
        print_log(
            f"{type(self).__name__} goes on by this config's plan and not by the checkpoint's: "
            f'{", ".join(changes)}',
            logger='current',
            level=logging.WARNING,
        )
        epochs = state_dict['_global_step'] / there['steps_per_epoch']
        self._go_to(round(epochs * self.steps_per_epoch))

    def _go_to(self, step: int) -> None:
        """Be where so many calls of `step` lead to."""
        self._global_step = step
        self.last_step = max(min(step, self.end - 1) - self.begin, -1)
        groups = self.optimizer.param_groups
        if self.last_step >= 0:
            for group, value in zip(groups, self._get_value(), strict=True):
                group[self.param_name] = value
        self._last_value = [group[self.param_name] for group in groups]

    def _get_value(self) -> list[float]:
        factor = lr_factor(self.last_step, **self.curve)
        return [base * factor for base in self.base_values]


def _plan(state: dict[str, Any]) -> dict[str, Any]:
    """What a schedule's state says of its future, each number by its name."""
    rest = {key: value for key, value in state.items() if key not in (*_PROGRESS, 'verbose')}
    return {**rest.pop('curve', {}), **rest}
