"""The curves of a training, from the lines that its logs have (``vis_data/scalars.json``)."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_AP = 'bbox_mAP'
_MOST_POINTS = 1000  # of a curve
_LONGEST_LINE = 1 << 20


@dataclass
class History:
    """What a run has logged; empty for an evaluation alone.

    Attributes:
        losses: By name: epochs (fractions of them count) and values.
        epochs: Those that were evaluated.
        ap: Their AP.
        ap50: Their AP50.
    """

    losses: dict[str, tuple[list[float], list[float]]] = field(default_factory=dict)
    epochs: list[int] = field(default_factory=list)
    ap: list[float] = field(default_factory=list)
    ap50: list[float] = field(default_factory=list)


def read_history(log_dirs: Sequence[Path], steps_per_epoch: int) -> History:
    """Read the logs of all starts of a run; a step that was done again counts once.

    Args:
        log_dirs: A folder for each start, the oldest first.
        steps_per_epoch: Of the training.
    """
    losses: dict[str, dict[float, float]] = {}
    evaluated: dict[int, tuple[float, float]] = {}
    for line in _lines(log_dirs):
        step = line.get('step')
        if not isinstance(step, int):
            continue
        if 'loss' in line and 'lr' in line:
            for name, value in line.items():
                if name.startswith('loss') and isinstance(value, float):
                    losses.setdefault(name, {})[step / max(steps_per_epoch, 1)] = value
        for name, value in line.items():
            if name.rpartition('/')[2] == _AP:
                evaluated[step] = (value, line.get(f'{name}_50', value))
    epochs = sorted(evaluated)
    return History(
        {name: _thinned(points) for name, points in losses.items()},
        epochs,
        [evaluated[epoch][0] for epoch in epochs],
        [evaluated[epoch][1] for epoch in epochs],
    )


def _thinned(points: dict[float, float]) -> tuple[list[float], list[float]]:
    places = sorted(points)
    places = places[:: -(-len(places) // _MOST_POINTS) or 1]
    return places, [points[place] for place in places]


def _lines(log_dirs: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Yield what can be read of the logs."""
    for path in (folder / 'vis_data' / 'scalars.json' for folder in log_dirs):
        if not path.is_file():
            continue
        with path.open(encoding='utf-8', errors='replace') as file:
            for text in file:
                try:
                    line = json.loads(text) if len(text) < _LONGEST_LINE else None
                except ValueError:
                    continue
                if isinstance(line, dict):
                    yield line
