"""The reference's learning-rate schedules as a closed form of the step.

The reference is google/automl, ``efficientdet/det_model_fn.py`` and ``tf2/train_lib.py`` beside it.
mmengine's schedulers differ: a PolyLR after a warm-up counts from the warm-up's end, and a resumed
run takes milestones and length from the checkpoint even if the config has changed.
"""

import logging
import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from mmdet.registry import PARAM_SCHEDULERS
from mmengine.logging import print_log
from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler.param_scheduler import INF, OptimizerType

from effdet_plugin.errors import CheckpointError, ConfigError

SCHEDULES = 'scheduler_types'  # key of a checkpoint's meta
Decay = Literal['cosine', 'stepwise', 'polynomial', 'constant']
_OTHER = (
    'param_scheduler of the checkpoint is {}, that of the config {}: resume with the config it was '
    'trained with, or start a new run from its weights by load_from'
)
# How far a schedule is; the rest of its state are its hyper-parameters.
_PROGRESS = {'last_step', '_global_step', '_last_value', 'verbose'}


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
    from_warmup_end: bool = False,
) -> float:
    """Return the learning rate of a step, divided by the base rate.

    Args:
        step: Step, from 0 on.
        decay: What follows the warm-up.
        warmup_steps: Steps of the linear warm-up.
        total_steps: Steps of the training; after them ``polynomial`` is 0.
        warmup_factor: Factor at step 0.
        milestone_steps: Steps of ``stepwise`` at which the factor is multiplied by ``gamma``.
        gamma: See ``milestone_steps``.
        power: Exponent of ``polynomial``.
        from_warmup_end: Count the steps of the cosine from the end of the warm-up, so that it
            starts at 1 and ends at 0. The reference counts from 0 over ``total - warmup`` steps: it
            reaches 0 one warm-up before the end and rises again a little.
    """
    if step < warmup_steps:  # strictly: the step of the warm-up's end has the decay's factor
        return warmup_factor + (1 - warmup_factor) * step / warmup_steps
    if decay == 'cosine':
        span = max(1, total_steps - warmup_steps)  # the reference's, in both cases
        start = warmup_steps if from_warmup_end else 0
        return 0.5 * (1 + math.cos(math.pi * (step - start) / span))
    if decay == 'stepwise':
        return float(gamma ** sum(step >= milestone for milestone in milestone_steps))
    if decay == 'polynomial':
        return float(max(0.0, 1 - step / max(1, total_steps)) ** power)
    return 1.0


@PARAM_SCHEDULERS.register_module()
class ReferenceLR(_ParamScheduler):
    """Linear warm-up, then one of the reference's decays.

    In a config the times are epochs and ``convert_to_iter_based=True`` makes the rate change at
    every step; the length of the training is the train loop's unless ``max_epochs`` is set.
    Outside of a config, set ``steps_per_epoch``, which may be a fraction: times become
    ``int(epochs * steps_per_epoch)``.

    A run that is resumed with another config follows the schedule of the new one, from the epoch
    that it has reached.

    In the reference the rate is 0.08 and the warm-up starts at 0.008 per 64 images (factor 0.1);
    its Keras trainer does not scale that start with the batch (0.05 at batch 128).

    Args:
        optimizer: Optimiser or wrapper whose groups' initial rates are scaled.
        decay: ``'cosine'``, ``'stepwise'``, ``'polynomial'`` or ``'constant'``.
        warmup_epochs: Length of the linear warm-up.
        warmup_factor: Factor of the rate at the first step.
        milestones: Epochs of ``stepwise``.
        gamma: Factor at each milestone.
        power: Exponent of ``polynomial``.
        from_warmup_end: Start the cosine at the end of the warm-up, unlike the reference.
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
        from_warmup_end: bool = False,
        max_epochs: float | None = None,
        steps_per_epoch: float = 1.0,
        param_name: str = 'lr',
        begin: int = 0,
        end: int = INF,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        if decay not in get_args(Decay):
            choices = ', '.join(get_args(Decay))
            raise ConfigError(f'decay={decay!r} of ReferenceLR must be one of {choices}')
        if decay in ('cosine', 'polynomial') and max_epochs is None and end == INF:
            raise ConfigError(f'decay={decay!r} of ReferenceLR needs max_epochs (or end)')
        self.steps_per_epoch = steps_per_epoch
        self.settings: dict[str, Any] = {  # arguments of `lr_factor`
            'decay': decay,
            'warmup_steps': int(warmup_epochs * steps_per_epoch),
            'total_steps': end - begin if max_epochs is None else int(max_epochs * steps_per_epoch),
            'warmup_factor': warmup_factor,
            'milestone_steps': [int(epoch * steps_per_epoch) for epoch in milestones],
            'gamma': gamma,
            'power': power,
            'from_warmup_end': from_warmup_end,
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
        """Build a schedule that changes at every step from one in epochs; mmengine calls this.

        Args:
            *args: Arguments of the class.
            epoch_length: Steps per epoch.
            begin: First epoch.
            end: Epoch at which it stops.
            by_epoch: True; mmengine passes the value of the config.
            **kwargs: Arguments of the class.
        """
        assert by_epoch, 'mmengine converts epoch-based schedules only'
        kwargs.setdefault('steps_per_epoch', epoch_length)
        kwargs |= {'begin': begin * epoch_length, 'by_epoch': False}
        kwargs['end'] = end if end == INF else end * epoch_length
        return cls(*args, **kwargs)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at the epoch that a state has reached, with this schedule's hyper-parameters.

        mmengine takes the hyper-parameters from the state, too: a training with more epochs than
        before would spend the added ones at the end of the old schedule.

        Args:
            state_dict: Of `state_dict`, or of another scheduler of mmengine.
        """
        here, there = _hyper_parameters(self.state_dict()), _hyper_parameters(state_dict)
        # mmengine's schedulers do not have it: one of epochs counts these, of one of steps the
        # length of an epoch counts as unchanged.
        per_epoch = 1.0 if there.get('by_epoch') else self.steps_per_epoch
        there.setdefault('steps_per_epoch', per_epoch)
        changes = [
            f'{key} is {reprlib.repr(there.get(key))} there and {reprlib.repr(value)} here'
            for key, value in here.items()
            if there.get(key) != value
        ]
        if changes:
            print_log(
                f'{type(self).__name__} follows the schedule of this config, not of the '
                f'checkpoint: {", ".join(changes)}',
                logger='current',
                level=logging.WARNING,
            )
        # By epochs, not steps: with another batch size an epoch has another number of steps.
        epochs = state_dict['_global_step'] / there['steps_per_epoch']
        self._global_step = round(epochs * self.steps_per_epoch)
        # Where so many calls of `step` lead to: it counts from `begin` and stops before `end`.
        self.last_step = max(min(self._global_step, self.end - 1) - self.begin, -1)
        groups = self.optimizer.param_groups
        if self.last_step >= 0:
            for group, value in zip(groups, self._get_value(), strict=True):
                group[self.param_name] = value
        self._last_value = [group[self.param_name] for group in groups]

    def _get_value(self) -> list[float]:
        factor = lr_factor(self.last_step, **self.settings)
        return [base * factor for base in self.base_values]


def _hyper_parameters(state: dict[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters in a schedule's state, by name."""
    rest = {key: value for key, value in state.items() if key not in _PROGRESS}
    return {**rest.pop('settings', {}), **rest}


def schedule_types(schedules: Any) -> list[str] | None:
    """Return the class names of a runner's schedules; None of several optimizers."""
    if isinstance(schedules, dict):
        return None
    return [type(schedule).__name__ for schedule in schedules or ()]


def check_schedule_types(checkpoint: Mapping[str, Any], own: Sequence[str] | None) -> None:
    """Refuse to resume a training with other schedules.

    mmengine takes the attributes of one schedule for those of another, and leaves out those that
    have no partner. Only `ReferenceLR` continues after any other.

    Args:
        checkpoint: Its meta tells the types where `AtomicCheckpointHook` has written it.
        own: Names of the config's schedules, see `schedule_types`; None passes.

    Raises:
        CheckpointError: One line that says what differs.
    """
    saved = checkpoint.get('param_schedulers', [])
    if not own or not isinstance(saved, list):
        return
    types = (checkpoint.get('meta') or {}).get(SCHEDULES) or [''] * len(saved)
    follows = bool(saved) and set(own) == {ReferenceLR.__name__} and len(own) <= len(saved)
    fits = len(types) == len(own) and all(
        old in ('', new) for old, new in zip(types, own, strict=True)
    )
    if not follows and not fits:
        there = ', '.join(map(str, types)) if any(types) else f'{len(saved) or "no"} of them'
        raise CheckpointError(_OTHER.format(there, ', '.join(own)))


def check_schedules(checkpoint: Mapping[str, Any], schedules: Any) -> None:
    """Do the same with built schedules, also where the types are unknown, and tell settings.

    Args:
        checkpoint: Its content.
        schedules: Of the runner: a list, None, or a dict for several optimizers, which passes.

    Raises:
        CheckpointError: One line that says what differs.
    """
    check_schedule_types(checkpoint, schedule_types(schedules))
    saved = checkpoint.get('param_schedulers')
    if not isinstance(schedules, list) or not isinstance(saved, list):
        return
    for state, schedule in zip(saved, schedules, strict=False):
        if isinstance(schedule, ReferenceLR) or not isinstance(state, dict):
            continue
        name, own = type(schedule).__name__, schedule.state_dict()
        if unknown := own.keys() - state.keys() or state.keys() - own.keys():
            raise CheckpointError(_OTHER.format(f'none with the {min(unknown)} of {name}', name))
        for key in sorted(own.keys() - _PROGRESS):
            if own[key] != state[key]:  # milestones are a dict, and a Counter until written
                old, new = (dict(v) if isinstance(v, dict) else v for v in (state[key], own[key]))
                print_log(
                    f'{name} keeps {key}={reprlib.repr(old)} of the checkpoint; the '
                    f"config's {reprlib.repr(new)} is not used (ReferenceLR would use it)",
                    logger='current',
                    level=logging.WARNING,
                )
