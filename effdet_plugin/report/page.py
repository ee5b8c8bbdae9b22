"""A report as one HTML page: no file beside it, nothing fetched, every name escaped."""

import base64
import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from effdet_plugin.report.collect import SIZES, Facts
from effdet_plugin.report.examples import Example

Table = Sequence[Sequence[str]]
_MANY_ROWS = 30  # from so many on a table is folded

_STYLE = """
:root{color-scheme:light}
body{font:15px/1.5 system-ui,sans-serif;color:#1d2129;background:#fff;margin:0}
main{max-width:1120px;margin:0 auto;padding:24px}
h1{font-size:24px;margin:0 0 4px;overflow-wrap:anywhere}h2{font-size:18px;margin:36px 0 10px}
p{margin:6px 0}.note{color:#5c6370;max-width:80ch}
.tiles{display:flex;flex-wrap:wrap;gap:12px;margin:18px 0}
.tile{border:1px solid #d9dce1;border-radius:8px;padding:10px 16px;min-width:96px}
.tile b{display:block;font-size:22px}.tile span{color:#5c6370;font-size:13px}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(440px,1fr));gap:14px}
figure{margin:0;border:1px solid #d9dce1;border-radius:8px;padding:8px;overflow:hidden}
img{max-width:100%;height:auto;display:block;margin:0 auto}
figcaption{font-size:13px;color:#3c434e;padding-top:6px;overflow-wrap:anywhere}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:4px 12px;border-bottom:1px solid #e6e8eb;text-align:right;vertical-align:top}
th:first-child,td:first-child{text-align:left;overflow-wrap:anywhere}
.text th,.text td{text-align:left;overflow-wrap:anywhere}thead th{border-bottom:2px solid #b9bec7}
pre{background:#f4f5f7;border-radius:8px;padding:10px 14px;white-space:pre-wrap;
overflow-wrap:anywhere}details summary{cursor:pointer}
"""


def page(
    title: str,
    facts: Facts,
    charts: Mapping[str, bytes],
    examples: Iterable[Example],
    settings: Table,
    labels: Table,
    commands: Sequence[str],
) -> str:
    """Return the page.

    Args:
        title: Of the page.
        facts: Of the evaluation.
        charts: PNGs by their titles.
        examples: The worst images.
        settings: Rows of name, value and reason.
        labels: Rows of the label statistics, the first one its head.
        commands: What to do next, a line each.
    """
    body = ''.join(
        (
            f'<h1>{html.escape(title)}</h1>',
            f'<p class="note">{html.escape(_summary(facts))}</p>',
            ''.join(_tiles(facts)),
            _section('Charts', _grid(_figures(charts))),
            _section('Classes', _CLASSES_NOTE + _table(_class_rows(facts))),
            _section('The images with the most mistakes', _worst(facts, examples)),
            _section('Labels', _table(labels)),
            _section('Settings', _table([['setting', 'value', 'why'], *settings], 'text')),
            _section('Next', f'<pre>{html.escape(chr(10).join(commands))}</pre>' * bool(commands)),
        )
    )
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        # Nothing but what is in the page: no script, no address.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f'<title>{html.escape(title)}</title><style>{_STYLE}</style></head>'
        f'<body><main>{body}</main></body></html>\n'
    )


_CLASSES_NOTE = (
    '<p class="note">AP is the mean over IoU 0.50 to 0.95, as COCO has it; small, medium and large '
    'are its sizes (areas below 32² and 96² pixels of the image). The threshold is the score from '
    'which on detections give the highest F1 at IoU 0.5; precision and recall are those there.</p>'
)


def _summary(facts: Facts) -> str:
    scored = facts.scored()
    boxes = sum(one.boxes for one in facts.classes)
    text = f'{_count(len(facts.images), "image")}, {_count(boxes, "object")}'
    if len(scored) > 1:
        best, worst = scored[0], scored[-1]
        text += (
            f'; best class {best.name} (AP {best.ap:.3f}), '
            f'worst class {worst.name} (AP {worst.ap:.3f})'
        )
    if facts.cut.threshold == facts.cut.threshold:  # no nan
        text += (
            f'. At scores {facts.scores_in_words}, {facts.cut.precision:.0%} of the '
            f'detections are right and {facts.cut.recall:.0%} of the objects are found.'
        )
    return text


def _tiles(facts: Facts) -> Iterator[str]:
    yield '<div class="tiles">'
    for name, key in (
        *(('AP', 'mAP'), ('AP50', 'mAP_50'), ('AP75', 'mAP_75'), ('recall at 100', 'AR@100')),
        *((f'AP {size}', f'mAP_{size[0]}') for size in SIZES),
    ):
        yield f'<div class="tile"><b>{_number(facts.metrics[key])}</b><span>{name}</span></div>'
    yield '</div>'


def _class_rows(facts: Facts) -> Iterator[list[str]]:
    yield ['class', 'objects', 'AP', 'AP50', *SIZES, 'threshold', 'F1', 'precision', 'recall']
    for one in sorted(facts.classes, key=lambda one: -one.ap):
        values = (one.ap, one.ap50, *one.by_size, *one.cut)
        yield [one.name, f'{one.boxes:,}', *map(_number, values)]


def _worst(facts: Facts, examples: Iterable[Example]) -> str:
    shown = list(examples)
    if not shown:
        return '<p>No mistakes in any image.</p>'
    note = (
        f'Prediction left (scores {facts.scores_in_words}), ground truth right. Counted are '
        'objects that were missed, detections of nothing, and those of a wrong class.'
    )
    figures = (
        f'<figure>{_image(one.jpeg, "jpeg", one.text) if one.jpeg else ""}'
        f'<figcaption>{html.escape(one.text)}</figcaption></figure>'
        for one in shown
    )
    return f'<p class="note">{html.escape(note)}</p>{_grid(figures)}'


def _figures(charts: Mapping[str, bytes]) -> Iterator[str]:
    for title, content in charts.items():
        yield f'<figure>{_image(content, "png", title)}</figure>'


def _image(content: bytes, kind: str, text: str) -> str:
    data = base64.b64encode(content).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/{kind};base64,{data}">'


def _grid(figures: Iterable[str]) -> str:
    return f'<div class="grid">{"".join(figures)}</div>'


def _section(title: str, content: str) -> str:
    return f'<h2>{html.escape(title)}</h2>{content}' if content else ''


def _table(rows: Iterable[Sequence[str]], kind: str = 'numbers') -> str:
    head, *others = rows
    if not others:
        return ''
    lines = (
        '<tr>' + ''.join(f'<td>{html.escape(cell)}</td>' for cell in row) + '</tr>'
        for row in others
    )
    cells = ''.join(f'<th>{html.escape(cell)}</th>' for cell in head)
    table = (
        f'<table class="{kind}"><thead><tr>{cells}</tr></thead>'
        f'<tbody>{"".join(lines)}</tbody></table>'
    )
    if len(others) <= _MANY_ROWS:
        return table
    return f'<details open><summary>{len(others)} rows</summary>{table}</details>'


def _number(value: float) -> str:
    """Return three decimals; a dash for -1 (no object) and nan."""
    return f'{value:.3f}' if value >= 0 else '–'


def _count(number: int, what: Any) -> str:
    return f'{number:,} {what}{"" if number == 1 else "s"}'
