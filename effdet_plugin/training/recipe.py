"""What the data decide about the settings of a training: a pure function, and what it advises.

The schedule of `custom_coco` follows the data; where a person would have to weigh something
(tiles cost time in use, too), it is advice. Who sets a value keeps it.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from mmengine.config import Config
from numpy.typing import NDArray

from effdet_plugin.config import find_sizes, set_image_size
from effdet_plugin.config.schema import SIZE_KEY
from effdet_plugin.data_check.anchors import REACH_IOU, anchor_reach
from effdet_plugin.own_data import DatasetDescription

WARM_UP_SHARE = 0.2  # of a training, at most: the rate must have time to fall
EPOCHS = 12, 200  # fewest, most
EVALUATIONS = 25  # of a training: more would take much of its time
_EPOCHS_OF_100 = 140  # images; four times the images, half the epochs
_FEW_STEPS = 300  # of a training: the predicting layers of a new head start at random
_FEW, _FEW_WHY = 'few steps', 'a new head needs some hundred'
_LONG_STEPS = 10_000  # from which on BN's statistics may follow slowly
_LONG_MOMENTUM = 0.01  # the reference's
BATCHES = 8, 32  # images per update for which the config's rate was found
_SMALL_PX = 24.0  # side of the smallest anchors of Lite0; a box of half of it reaches none
_SMALL_SHARE = 0.05  # of the boxes, which are smaller than what is called small
_GROWN = 1.6  # how much larger than the network's own an input may get
_STEP = 64  # of input sizes, pixels
_WORTH_TELLING = 0.05  # share of boxes that no anchor reaches
MOMENTA = tuple(f'model.{part}.norm_momentum' for part in ('backbone', 'neck', 'bbox_head'))
_EPOCHS_KEY, _INTERVAL_KEY = 'train_cfg.max_epochs', 'train_cfg.val_interval'
_WARM_UP_KEY, _RATE_KEY = 'param_scheduler.0.warmup_epochs', 'optim_wrapper.optimizer.lr'


class Statistics(NamedTuple):
    """What is known of the training data.

    Args:
        images: Number of training images.
        boxes: Number of objects in them.
        small_side: Side (root of the area) that 5 % of the boxes do not reach, as a share of the
            longer side of their image.
        image_side: Median of the longer sides of the images, pixels.
        unreached: Share of the boxes that no anchor reaches at IoU 0.5.
        anchor_advice: Options with which fewer are left, '' for none.
    """

    images: int
    boxes: int
    small_side: float = 1.0
    image_side: float = 0.0
    unreached: float = 0.0
    anchor_advice: str = ''


class Schedule(NamedTuple):
    """The settings that the recipe looks at.

    Args:
        epochs: Of the training.
        batch: Images per update, of all processes.
        warm_up: Epochs.
        size: Longer side of the input, pixels.
        interval: Epochs between two evaluations.
        rate: Learning rate.
    """

    epochs: int
    batch: int
    warm_up: float
    size: int
    interval: int = 2
    rate: float = 0.002


class Choice(NamedTuple):
    """One line of what was chosen.

    Args:
        name: Of the setting.
        value: In words.
        why: The reason.
        keys: Paths in the config that are set; none for advice.
        number: What they are set to.
    """

    name: str
    value: str
    why: str
    keys: tuple[str, ...] = ()
    number: float = 0.0


def choose(data: Statistics, asked: Schedule, given: Collection[str] = ()) -> list[Choice]:
    """Return what the data decide, and advice.

    Args:
        data: Statistics of the training data.
        asked: What config and person have set.
        given: Paths that the person has set, or the first parts of these; they are not changed.
    """
    if not data.images:
        return []

    def is_free(*keys: str) -> bool:
        return not any(key == one or key.startswith(f'{one}.') for key in keys for one in given)

    choices = []
    if is_free(_EPOCHS_KEY):
        epochs = epochs_of(data.images)
        why = f'{data.images:,} images; four times as many take half the epochs'
        choices.append(Choice('by the data', f'{epochs} epochs', why, (_EPOCHS_KEY,), epochs))
        asked = asked._replace(epochs=epochs)
    steps = asked.epochs * max(1, round(data.images / max(asked.batch, 1)))
    optional = _schedule(asked, steps)
    choices += [one for one in optional if is_free(*one.keys)]
    size = asked.size
    if is_free(SIZE_KEY):
        size = input_size(data, asked.size)
        if size != asked.size:
            why = f'5% of the boxes are below {data.small_side * asked.size:.0f} px at {asked.size}'
            choices.append(Choice('larger input', str(size), why, (SIZE_KEY,), size))
    return [*choices, *_advice(data, asked._replace(size=size), steps)]


def epochs_of(images: int) -> int:
    """Return the number of epochs for a number of training images."""
    fewest, most = EPOCHS
    return max(fewest, min(most, round(100 * math.sqrt(_EPOCHS_OF_100 / images))))


def scaled_rate(rate: float, batch: int) -> float:
    """Return the learning rate for a batch: by its root outside of those that it was found for."""
    near = min(max(batch, BATCHES[0]), BATCHES[1])
    return rate if near == batch else float(f'{rate * math.sqrt(batch / near):.3g}')


def input_size(data: Statistics, size: int) -> int:
    """Return the input size at which the small boxes are as large as the smallest anchors.

    No more than `_GROWN` times the network's own, and no more than the images have.

    Args:
        data: Of the training.
        size: The network's own, longer side, pixels.
    """
    wanted = _SMALL_PX / data.small_side if data.small_side > 0 else math.inf
    most = min(_GROWN * size, data.image_side)
    grown = math.ceil(min(wanted, most) / _STEP) * _STEP
    return max(size, grown if grown <= most else math.floor(most / _STEP) * _STEP)


def _schedule(asked: Schedule, steps: int) -> Iterator[Choice]:
    """Yield what follows from the length of a training and its batch."""
    interval = -(-asked.epochs // EVALUATIONS)
    if interval > asked.interval:
        why = f'about {EVALUATIONS} evaluations in all'
        yield Choice('evaluation', f'every {interval} epochs', why, (_INTERVAL_KEY,), interval)
    longest = round(asked.epochs * WARM_UP_SHARE, 2)
    if asked.warm_up > longest:
        why = f'a fifth of {asked.epochs} epochs; the config has {asked.warm_up:g}'
        yield Choice('warm-up', f'{longest:g} epochs', why, (_WARM_UP_KEY,), longest)
    rate = scaled_rate(asked.rate, asked.batch)
    if rate != asked.rate:
        why = f'by the root of the batch: {asked.rate:g} is for {BATCHES[0]} to {BATCHES[1]}'
        yield Choice('rate', f'{rate:g}', why, (_RATE_KEY,), rate)
    if steps >= _LONG_STEPS:
        why = f"{steps:,} steps are enough for the reference's slower statistics"
        yield Choice('BN momentum', f'{_LONG_MOMENTUM}', why, MOMENTA, _LONG_MOMENTUM)


def _advice(data: Statistics, asked: Schedule, steps: int) -> Iterator[Choice]:
    """Yield what a person should weigh."""
    if steps < _FEW_STEPS:
        wanted = -(-_FEW_STEPS * asked.epochs // steps)
        yield Choice(_FEW, f'{steps} in all', f'{_FEW_WHY}; --epochs {wanted} or more')
    if data.small_side * asked.size < _SMALL_PX / 2:
        side = f'5% of the boxes are below {data.small_side * asked.size:.0f} px at {asked.size}'
        yield Choice('small boxes', side, '--tiles when predicting, or more pixels, finds them')
    if data.unreached > _WORTH_TELLING:
        value = f'{data.unreached:.0%} of the boxes are reached by none at IoU {REACH_IOU}'
        why = f'fewer with {data.anchor_advice}' if data.anchor_advice else ''
        yield Choice('anchors', value, why)


def lowered(choices: Sequence[Choice], epochs: int, steps: int) -> list[Choice]:
    """Return the choices as they hold after ``--time`` has lowered the number of epochs.

    Args:
        choices: For the number of epochs before.
        epochs: That are left.
        steps: Of these, in all.
    """
    left = []
    for one in choices:
        if _EPOCHS_KEY in one.keys:
            left.append(one._replace(why=f'{one.why}; --time leaves {epochs}'))
        elif _INTERVAL_KEY in one.keys:
            is_once = one.number >= epochs
            value = 'after the last epoch' if is_once else f'{one.value} and after the last one'
            left.append(one._replace(value=value, why=''))
        elif _WARM_UP_KEY not in one.keys and one.name != _FEW:  # the row of the rate has the first
            left.append(one)
    if steps < _FEW_STEPS:
        left.append(Choice(_FEW, f'{steps} in all', f'{_FEW_WHY}; more --time'))
    return left


def statistics(cfg: Config, description: DatasetDescription) -> Statistics:
    """Return the statistics of own data, boxes in pixels of a config's input."""
    reach = anchor_reach(cfg, description)
    train = description.train
    longer = [max(image.width, image.height) for image in train]
    known = Statistics(
        len(train), train.num_targets, image_side=float(np.median(longer)) if longer else 0.0
    )
    if reach is None:
        return known
    small = 1.0
    if len(reach.boxes):
        small = float(np.quantile(sides(reach.boxes), _SMALL_SHARE)) / max(reach.size)
    return known._replace(small_side=small, unreached=reach.missed, anchor_advice=reach.advice)


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
    train_cfg = cfg.get('train_cfg') or {}
    if not isinstance(train_cfg.get('max_epochs'), int):
        return []
    wrapper = cfg.get('optim_wrapper') or {}
    asked = Schedule(
        train_cfg['max_epochs'],
        int(cfg.train_dataloader.get('batch_size', 1))
        * processes
        * wrapper.get('accumulative_counts', 1),
        float(first.get('warmup_epochs', 0)),
        _input_side(cfg),
        int(train_cfg.get('val_interval', 1)),
        float((wrapper.get('optimizer') or {}).get('lr', 0.0)),
    )
    choices = choose(statistics(cfg, description), asked, given)
    for one in choices:
        if one.keys == (SIZE_KEY,):
            set_image_size(cfg, int(one.number))
        else:
            cfg.merge_from_dict(dict.fromkeys(one.keys, one.number))
    if _input_side(cfg) == asked.size:
        return choices
    # What is told of anchors and small boxes is of the size that is trained.
    again = asked._replace(size=_input_side(cfg), epochs=cfg.train_cfg.max_epochs)
    told = choose(statistics(cfg, description), again, [*given, SIZE_KEY, _EPOCHS_KEY])
    return [one for one in choices if one.keys] + [one for one in told if not one.keys]


def _input_side(cfg: Config) -> int:
    return int(next((max(value) for _, value in find_sizes(cfg)), 0))
