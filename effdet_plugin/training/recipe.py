"""What the data decide about the settings of a training: a pure function, and what it advises.

A value is only changed where the config's own cannot be right for the data; where a person would
have to weigh something (a larger input costs time), it is advice. Who sets a value keeps it.
"""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from mmengine.config import Config
from numpy.typing import NDArray

from effdet_plugin.config import find_sizes
from effdet_plugin.data_check.anchors import REACH_IOU, anchor_reach
from effdet_plugin.own_data import DatasetDescription

WARM_UP_SHARE = 0.2  # of a training, at most: the rate must have time to fall
_FEW_STEPS = 300  # of a training: the predicting layers of a new head start at random
_SMALL_PX = 12.0  # half of the side of the smallest anchors of Lite0, 24 px
_MANY = 0.2  # share of boxes from which on advice is given
_WORTH_TELLING = 0.05  # share of boxes that no anchor reaches


class Statistics(NamedTuple):
    """What is known of the training data.

    Args:
        images: Number of training images.
        boxes: Number of objects in them.
        small: Share of the boxes whose side (root of the area) is below 12 pixels of the input.
        unreached: Share of the boxes that no anchor reaches at IoU 0.5.
        anchor_advice: Options with which fewer are left, '' for none.
    """

    images: int
    boxes: int
    small: float = 0.0
    unreached: float = 0.0
    anchor_advice: str = ''


class Schedule(NamedTuple):
    """The settings that the recipe looks at.

    Args:
        epochs: Of the training.
        batch: Images per update, of all processes.
        warm_up: Epochs.
        size: Longer side of the input, pixels.
    """

    epochs: int
    batch: int
    warm_up: float
    size: int


class Choice(NamedTuple):
    """One line of what was chosen.

    Args:
        name: Of the setting.
        value: In words.
        why: The reason.
        key: Path in the config that is set; '' for advice.
        number: What it is set to.
    """

    name: str
    value: str
    why: str
    key: str = ''
    number: float = 0.0


def choose(data: Statistics, asked: Schedule, given: Collection[str] = ()) -> list[Choice]:
    """Return what the data decide, and advice.

    Args:
        data: Statistics of the training data.
        asked: What config and person have set.
        given: Paths that the person has set, which are not changed.
    """
    choices = []
    longest = round(asked.epochs * WARM_UP_SHARE, 2)
    is_own = any(path.startswith('param_scheduler') for path in given)
    if asked.warm_up > longest and not is_own:
        why = f'a fifth of {asked.epochs} epochs; the config has {asked.warm_up:g}'
        choices.append(
            Choice(
                'warm-up', f'{longest:g} epochs', why, 'param_scheduler.0.warmup_epochs', longest
            )
        )
    steps = asked.epochs * max(1, round(data.images / max(asked.batch, 1)))
    if steps < _FEW_STEPS and data.images:
        wanted = -(-_FEW_STEPS * asked.epochs // steps)
        why = f'a new head needs some hundred; --epochs {wanted} or more'
        choices.append(Choice('few steps', f'{steps} in all', why))
    if data.small > _MANY:
        why = f'--image-size {_larger(asked.size)}, or --tiles when predicting, finds more of them'
        side = f'{data.small:.0%} of the boxes are below {_SMALL_PX:g} px at {asked.size}'
        choices.append(Choice('small boxes', side, why))
    if data.unreached > _WORTH_TELLING:
        value = f'{data.unreached:.0%} of the boxes are reached by none at IoU {REACH_IOU}'
        why = f'fewer with {data.anchor_advice}' if data.anchor_advice else ''
        choices.append(Choice('anchors', value, why))
    return choices


def statistics(cfg: Config, description: DatasetDescription) -> Statistics:
    """Return the statistics of own data, boxes in pixels of a config's input."""
    reach = anchor_reach(cfg, description)
    train = description.train
    if reach is None:
        return Statistics(len(train), train.num_targets)
    small = float((sides(reach.boxes) < _SMALL_PX).mean()) if len(reach.boxes) else 0.0
    return Statistics(len(train), train.num_targets, small, reach.missed, reach.advice)


def sides(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the roots of the areas (n,) of boxes (n, 4) xyxy."""
    return np.sqrt((boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1))


def apply_recipe(
    cfg: Config, description: DatasetDescription, given: Collection[str], processes: int = 1
) -> list[Choice]:
    """Set in a config what its data decide; return all choices.

    Args:
        cfg: Of a training of own data; changed in place.
        description: The data.
        given: Paths that the person has set.
        processes: That train together.
    """
    schedulers = cfg.get('param_scheduler') or []
    first = schedulers[0] if isinstance(schedulers, list) and schedulers else {}
    epochs = cfg.get('train_cfg', {}).get('max_epochs')
    if not isinstance(epochs, int):
        return []
    accumulated = (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    size = next((max(value) for _, value in find_sizes(cfg)), 0)
    asked = Schedule(
        epochs,
        int(cfg.train_dataloader.get('batch_size', 1)) * processes * accumulated,
        float(first.get('warmup_epochs', 0)),
        int(size),
    )
    choices = choose(statistics(cfg, description), asked, given)
    for one in choices:
        if one.key:
            cfg.merge_from_dict({one.key: one.number})
    return choices


def _larger(size: int) -> int:
    """Return about one and a half times a size, a multiple of the coarsest stride."""
    return -(-size * 3 // 2 // 128) * 128
