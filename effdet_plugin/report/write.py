"""Write a report: ``report.html`` and ``report.png`` in a folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from effdet_plugin.errors import WriteError
from effdet_plugin.files import write_atomically
from effdet_plugin.own_data.findings import printable
from effdet_plugin.report.collect import Facts
from effdet_plugin.report.examples import draw_worst
from effdet_plugin.report.figures import charts, figure_of, overview
from effdet_plugin.report.history import History
from effdet_plugin.report.page import page

PAGE, SHEET = 'report.html', 'report.png'


@dataclass(frozen=True)
class Subject:
    """What a report is about, beside the evaluation.

    Attributes:
        title: Of the page.
        images: Folder that the names of the images are relative to.
        history: Curves of the training; empty for an evaluation alone.
        settings: Rows of name, value and reason.
        trained: Number of training boxes by class; None where they are not known.
        commands: What to do next, a line each.
    """

    title: str
    images: Path
    history: History = field(default_factory=History)
    settings: Sequence[tuple[str, str, str]] = ()
    trained: Mapping[str, int] | None = None
    commands: Sequence[str] = ()


def write_report(facts: Facts, subject: Subject, folder: Path) -> Path:
    """Write the page and the sheet of charts; return the page.

    Args:
        facts: Of the evaluation.
        subject: The rest.
        folder: Made if it is missing.

    Raises:
        WriteError: The folder cannot be written.
    """
    if folder.is_file():
        raise WriteError(f'{folder}: is a file; give a folder for the report')
    draws = charts(subject.history)
    pngs = {title: figure_of(draw, facts, subject.history) for title, draw in draws.items()}
    text = page(
        subject.title,
        facts,
        pngs,
        draw_worst(facts, subject.images),
        subject.settings,
        label_rows(facts, subject.trained),
        subject.commands,
    )
    write_atomically(folder / PAGE, text)
    title = f'{subject.title}: AP {facts.metrics["mAP"]:.3f}, AP50 {facts.metrics["mAP_50"]:.3f}'
    write_atomically(folder / SHEET, overview(printable(title), list(pngs.values())))
    return folder / PAGE


def label_rows(facts: Facts, trained: Mapping[str, int] | None = None) -> list[list[str]]:
    """Return the statistics of the labels, a row for each class and one for all; head first.

    Args:
        facts: Of the evaluation.
        trained: Number of training boxes by class.
    """
    truths = [one.truth for one in facts.images]
    labels = np.concatenate([np.zeros(0, np.int64), *(truth.labels for truth in truths)])
    boxes = np.concatenate([np.zeros((0, 4)), *(truth.boxes for truth in truths)])
    present = np.concatenate([np.zeros(0, np.int64), *(np.unique(t.labels) for t in truths)])
    images = np.bincount(present, minlength=len(facts.names))
    sides = boxes[:, 2:] - boxes[:, :2]
    mean_side = np.sqrt(sides.prod(axis=1))
    head = ['class', 'images', 'boxes', 'side, px: median', '10th percentile', '90th percentile']
    rows = [head if trained is None else [*head, 'training boxes']]
    every = [*enumerate(facts.names), (-1, 'all')]
    for label, name in every:
        is_its = labels == label if label >= 0 else np.ones(len(labels), bool)
        number = int(images[label]) if label >= 0 else len(truths)
        row = [name, f'{number:,}', f'{int(is_its.sum()):,}']
        spread = np.percentile(mean_side[is_its], (50, 10, 90)) if is_its.any() else None
        row += ['–'] * 3 if spread is None else [f'{value:.0f}' for value in spread]
        if trained is not None:
            own = sum(trained.values()) if label < 0 else trained.get(name, 0)
            row.append(f'{own:,}')
        rows.append(row)
    return rows
