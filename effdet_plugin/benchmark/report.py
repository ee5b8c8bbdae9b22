"""Measures as rows of a table and as JSON."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from effdet_plugin.benchmark.timing import Figures


@dataclass
class Measure:
    """One row: a thing that was timed.

    Attributes:
        name: Such as ``network/b1/lite0 fast``; unique in a run.
        figures: Times of its calls.
        images: Number of images in a call.
        against: Name of the measure that ``speedup`` relates to; '' for none.
        note: Such as the difference of its output from the reference form's.
        extra: More figures for JSON.
    """

    name: str
    figures: Figures
    images: int = 1
    against: str = ''
    note: str = ''
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    """Result of a benchmark.

    Attributes:
        machine: See `effdet_plugin.benchmark.machine.describe`.
        measures: In the order of the table.
        notes: Lines below the table.
    """

    machine: dict[str, Any]
    measures: list[Measure]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: figures by measure, all times of one image.

        ``speedup`` is the time of the measure named ``against`` over this one's, in CPU time where
        one thread computes, else in wall time; ``memory_ratio`` is this peak over the other's.
        """
        plain: dict[str, Any] = {'machine': self.machine}
        for measure in self.measures:
            plain[measure.name] = {**measure.figures.to_dict(measure.images), **measure.extra}
        key = self._fair_time()
        for measure in self.measures:
            if measure.against not in plain:
                continue
            own, theirs = plain[measure.name], plain[measure.against]
            own['against'] = measure.against
            own['speedup'] = round(theirs[key] / own[key], 3) if own[key] else None
            if 'peak_mb' in own and 'peak_mb' in theirs:
                own['memory_ratio'] = round(own['peak_mb'] / theirs['peak_mb'], 3)
        return plain

    def to_json(self) -> str:
        """Return the JSON text."""
        return json.dumps(self.to_dict(), indent=1)

    def table(self) -> list[list[str]]:
        """Return the lines of the table, header first."""
        plain = self.to_dict()
        lines = [['ms per image', 'median', 'p10', 'p90', 'CPU', 'speedup', 'remark']]
        for measure in self.measures:
            row = plain[measure.name]
            times = [f'{row[key]:.1f}' for key in ('median_ms', 'p10_ms', 'p90_ms', 'cpu_ms')]
            speedup = row.get('speedup')
            lines.append([measure.name, *times, f'{speedup:.2f}' if speedup else '', measure.note])
        return lines

    def _fair_time(self) -> str:
        one_thread = self.machine['threads'] == 1 and 'gpu' not in self.machine
        return 'cpu_ms' if one_thread else 'median_ms'


def relate(measures: Iterable[Measure], reference: str) -> None:
    """Let all measures but the reference itself relate to it."""
    for measure in measures:
        if measure.name != reference:
            measure.against = reference


def joined(notes: Sequence[str]) -> str:
    """Return the remarks that are not empty, as one."""
    return '; '.join(note for note in notes if note)
