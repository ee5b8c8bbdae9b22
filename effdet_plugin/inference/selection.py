"""Which of a network's detections are kept: by score, by class, and how many."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any

import torch
from mmengine.structures import InstanceData

from effdet_plugin.errors import ConfigError

_NAMED = 5  # classes that a message lists


@dataclass(frozen=True)
class Selection:
    """Which detections are kept.

    Attributes:
        score_thr: Smallest score, from 0 to 1.
        classes: Names or labels of the classes to keep; None keeps all.
        max_per_img: How many of an image at most, the best ones of the kept classes; None: as many
            as the network gives.

    Raises:
        ConfigError: A threshold or number outside its range.
    """

    score_thr: float = 0.0
    classes: Sequence[str | int] | None = None
    max_per_img: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        check_score_thr(self.score_thr)
        most: Any = self.max_per_img
        if most is not None and (not isinstance(most, Integral) or int(most) < 1):
            raise ConfigError(f'max_per_img={most!r}: give a whole number, at least 1')

    def labels(self, names: Sequence[str]) -> list[int] | None:
        """Return the labels of the classes to keep; None for all.

        Args:
            names: Of the network's classes. Letters' case counts only where two differ by it.

        Raises:
            ConfigError: The network has no such class; the message names the nearest.
        """
        if self.classes is None:
            return None
        given = [self.classes] if isinstance(self.classes, str | int) else self.classes
        if not given:
            raise ConfigError('classes: an empty list would keep nothing; leave it out to keep all')
        return [_label(one, names) for one in given]

    def __call__(self, found: InstanceData, labels: Sequence[int] | None) -> InstanceData:
        """Return the detections to keep, by descending score.

        Args:
            found: ``bboxes`` ``(N, 4)``, ``scores`` ``(N,)``, ``labels`` ``(N,)``.
            labels: From `labels`.
        """
        is_kept = found.scores >= self.score_thr
        if labels is not None:
            is_kept &= torch.isin(found.labels, found.labels.new_tensor(labels))
        kept = found[is_kept]
        return kept if self.max_per_img is None else kept[: self.max_per_img]


def check_score_thr(value: Any) -> None:
    """Check a score threshold.

    Raises:
        ConfigError: It is not from 0 to 1.
    """
    if not isinstance(value, Real):
        raise ConfigError(f'score threshold {value!r}: give a number from 0 to 1')
    number = float(value)
    if not 0 <= number <= 1:
        percent = f'; {number:g} % is {number / 100:g}' if 1 < number <= 100 else ''
        raise ConfigError(f'score threshold {number:g}: scores are from 0 to 1{percent}')


def _label(one: str | int, names: Sequence[str]) -> int:
    """Return the label of a class that is given by its name or label."""
    if isinstance(one, int) and not isinstance(one, bool) and 0 <= one < len(names):
        return one
    if str(one) in names:
        return list(names).index(str(one))
    folded = [name.casefold() for name in names]
    same = [label for label, name in enumerate(folded) if name == str(one).casefold()]
    if len(same) == 1:
        return same[0]
    if str(one).isdigit() and int(one) < len(names):
        return int(one)
    near = get_close_matches(str(one).casefold(), folded, 1)
    known = ', '.join(names[:_NAMED]) + (', ...' if len(names) > _NAMED else '')
    hint = f'did you mean {names[folded.index(near[0])]!r}?' if near else f'it knows {known}'
    raise ConfigError(f'class {one!r}: the network has no such class; {hint}')
