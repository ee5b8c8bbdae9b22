"""What a check has found: as one page, as json, and as a few images."""

import html
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effdet_plugin.data_check.anchors import REACH_IOU, Reach
from effdet_plugin.data_check.labels import class_table, split_table
from effdet_plugin.data_check.sheets import CopiedImage, TwiceDrawn, draw_sheets
from effdet_plugin.errors import DatasetError
from effdet_plugin.files import write_atomically
from effdet_plugin.own_data.dataset import DatasetDescription
from effdet_plugin.own_data.findings import Finding, printable

ERROR, FAULT, NOTE = 'error', 'fault', 'note'
# What tells how the data was read, or is common in sound data.
_NOTES = frozenset(
    {
        *('file_unused', 'split_made', 'converted', 'small_batch', 'filtered', 'names_count'),
        *('class_group', 'difficult', 'box_from_outline', 'box_confidence', 'box_crowd'),
        *(
            'image_found_elsewhere',
            'image_other_suffix',
            'image_without_objects',
            'image_turned',
            'size_off',
            'path_followed',
        ),
    }
)
_TITLES = {
    ERROR: 'Errors: a training does not start',
    FAULT: 'Faults: trained on after mending or leaving out',
    NOTE: 'Notes',
}
_MAX_LISTED = 5  # places of a finding on the page
_MAX_ROWS = 40  # classes on it


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Args:
        data: What was checked.
        config: Name of the config whose anchors were compared.
        description: The dataset with all findings, errors first.
        copies: Images that are there twice.
        twice: Boxes that are there twice.
        reach: How well the anchors fit; None for a config without anchors.
    """

    data: Path
    config: str
    description: DatasetDescription
    copies: list[CopiedImage]
    twice: list[TwiceDrawn]
    reach: Reach | None

    def of_level(self, level: str) -> list[Finding]:
        """Return the findings that are errors, faults or notes."""
        return [one for one in self.description.findings if level_of(one) == level]

    @property
    def has_errors(self) -> bool:
        """Whether a training would not start."""
        return bool(self.of_level(ERROR))

    @property
    def has_faults(self) -> bool:
        """Whether there is an error or a fault."""
        return self.has_errors or bool(self.of_level(FAULT))

    def page(self) -> str:
        """Return all of it as text of one page."""
        return '\n'.join(self._lines())

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain values; of each finding the first places."""
        findings = [
            {
                'kind': one.kind,
                'level': level_of(one),
                'count': one.count,
                'message': one.message,
                'places': [place._asdict() for place in one.places],
            }
            for one in self.description.findings
        ]
        return {
            'data': str(self.data),
            'source': self.description.source,
            'splits': split_table(self.description),
            'classes': class_table(self.description),
            'findings': findings,
            'anchors': self.reach and self._anchors(self.reach),
        }

    def _anchors(self, reach: Reach) -> dict[str, Any]:
        return {
            'config': self.config,
            'image_size': list(reach.size),
            'boxes': len(reach.best_iou),
            'missed': round(reach.missed, 4),
            'advice': reach.advice,
        }

    def _lines(self) -> Iterator[str]:
        yield f'{printable(self.data)}: {self.description.source} annotations'
        yield ''
        yield from _table('split', split_table(self.description))
        yield ''
        yield from _table('class', class_table(self.description))
        yield '(small, medium, large: boxes of an area below 32², 96² and above, in image pixels)'
        yield ''
        yield self._anchor_line()
        for level, title in _TITLES.items():
            if findings := self.of_level(level):
                yield ''
                yield f'{title}:'
                for finding in findings:
                    yield from _finding_lines(finding)
        if not self.has_faults:
            yield ''
            yield 'No faults.'

    def _anchor_line(self) -> str:
        reach = self.reach
        if reach is None:
            return f'{self.config} has no anchors (or no input size) to compare with the boxes.'
        width, height = reach.size[1], reach.size[0]
        line = (
            f'Anchors of {self.config} at {width}x{height}: {reach.missed:.1%} of '
            f'{len(reach.best_iou)} training boxes are reached by none at IoU {REACH_IOU}'
        )
        return f'{line}; fewer with {reach.advice}' if reach.advice else line


def level_of(finding: Finding) -> str:
    """Return ``error``, ``fault`` or ``note``."""
    if finding.is_error:
        return ERROR
    return NOTE if finding.kind in _NOTES else FAULT


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write the page as html with its images.

    Args:
        report: What to write.
        folder: ``report.html`` and jpgs are written into it.

    Returns:
        The files, the page first.

    Raises:
        DatasetError: The folder lies in the data.
    """
    check_apart(report, folder)
    images = draw_sheets(report.description, report.copies, report.twice, report.reach, folder)
    body = ''.join(
        f'<h2>{html.escape(title)}</h2><img src="{path.name}" alt="{html.escape(title)}">'
        for title, path in images.items()
    )
    page = folder / 'report.html'
    text = (
        '<!DOCTYPE html><meta charset="utf-8"><title>Dataset</title>'
        '<style>body{font-family:sans-serif}pre{white-space:pre-wrap}img{max-width:100%}</style>'
        f'<pre>{html.escape(report.page())}</pre>{body}\n'
    )
    write_atomically(page, text)
    return [page, *images.values()]


def write_json(report: Report, path: Path) -> None:
    """Write the report as json, atomically."""
    write_atomically(path, json.dumps(report.as_json(), indent=1, ensure_ascii=False) + '\n')


def check_apart(report: Report, folder: Path) -> None:
    """Refuse a folder to write to that lies in the data.

    Raises:
        DatasetError: It does.
    """
    splits = report.description.splits.values()
    originals = {image.path.parent.resolve() for split in splits for image in split or []}
    if report.data.is_dir():
        originals.add(report.data.resolve())
    target = folder.resolve()
    for original in originals:
        if target == original or original in target.parents:
            raise DatasetError(f'{folder}: lies in the data ({original}); give a folder outside it')


def _finding_lines(finding: Finding) -> Iterator[str]:
    yield f'  {finding.message}'
    others = finding.places[1:_MAX_LISTED]
    for file, row, detail in others:
        yield '      ' + ', '.join(filter(None, (file, row, detail)))
    left = finding.count - 1 - len(others)
    if left:
        yield f'      and {left} more'


def _table(title: str, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield aligned lines: names to the left, numbers to the right."""
    if not rows:
        return
    cells = [
        [title, *list(rows[0])[1:]],
        *([printable(value) for value in row.values()] for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for name, *numbers in cells:
        right = (number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True))
        yield '  '.join([name.ljust(widths[0]), *right])
    if len(rows) > _MAX_ROWS:
        yield f'and {len(rows) - _MAX_ROWS} more (--json has all)'
