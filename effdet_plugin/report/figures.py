"""The charts of a report, each drawn on axes of matplotlib, which is imported when one is drawn."""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from effdet_plugin.inference.draw import class_colour
from effdet_plugin.report.collect import SIZES, ClassFacts, Facts
from effdet_plugin.report.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Draw = Callable[['Axes', Facts, History], None]

_BLUE, _ORANGE, _GREY = '#2563ad', '#d9730d', '#8a8f98'
_SIZE_COLOURS = ('#9ec5e8', '#5b97cf', '#1f5c99')
_MOST_BARS = 24  # classes in a chart of bars
_MOST_LINES = 8  # in one of curves
_MOST_CELLS = 16  # in the table of confusions
_LONGEST = 22  # letters of a name
_ROOM_FOR_NUMBER = 0.12  # length of a bar of shares
_FEW_BOXES = 500  # up to which they are drawn darker
_ABOVE_ONE = 1.03  # end of an axis of shares, so that one of 1 does not lie on the frame
_DPI = 110
_COLUMNS, _TITLE_PX = 3, 52  # of the sheet of charts


def short(name: str) -> str:
    """Return a name for a chart: not too long, and nothing in it is a formula."""
    name = ''.join(one if one.isprintable() else '?' for one in name)
    name = name if len(name) <= _LONGEST else f'{name[: _LONGEST - 1]}…'
    # matplotlib leaves labels out that begin with an underscore.
    return name.replace('$', r'\$') if not name.startswith('_') else f' {name}'.replace('$', r'\$')


def new_figure(width: float, height: float) -> 'Figure':
    """Return an empty figure; sides in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout='constrained', facecolor='white')
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: 'Figure') -> bytes:
    """Return a figure as the bytes of a PNG."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # its font lacks letters of some scripts: the page has them
        figure.savefig(file, dpi=_DPI, metadata={'Software': ''})
    return file.getvalue()


def draw_losses(axes: 'Axes', facts: Facts, history: History) -> None:
    """Draw the losses and the rate over epochs."""
    del facts
    colours = (_BLUE, _ORANGE, '#3a9a5b', '#8458b3')
    for colour, (name, (epochs, values)) in zip(colours, history.losses.items(), strict=False):
        axes.plot(epochs, values, color=colour, label=name, linewidth=1.6)
    axes.set(title='Training loss', xlabel='epoch', ylabel='loss')
    axes.locator_params(axis='x', integer=True)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def draw_ap_curve(axes: 'Axes', facts: Facts, history: History) -> None:
    """Draw AP and AP50 over epochs, the best one marked."""
    del facts
    for name, colour, values in (('AP50', _ORANGE, history.ap50), ('AP', _BLUE, history.ap)):
        axes.plot(history.epochs, values, color=colour, label=name, marker='.', linewidth=1.6)
    best, last = int(np.argmax(history.ap)), history.epochs[-1]
    axes.plot(history.epochs[best], history.ap[best], 'o', color=_BLUE, markersize=8)
    axes.annotate(
        f'{history.ap[best]:.3f} (epoch {history.epochs[best]})',
        (history.epochs[best], history.ap[best]),
        xytext=(0, 8),
        textcoords='offset points',
        ha='right' if history.epochs[best] > last / 2 else 'left',
    )
    top = _top(history.ap50)
    axes.set(title='AP on the validation images', xlabel='epoch', ylim=(0, top), ylabel='AP')
    axes.set_xlim(0, last + max(1, last // 20))
    axes.locator_params(axis='x', integer=True)
    axes.legend(frameon=False)


def draw_class_ap(axes: 'Axes', facts: Facts, history: History) -> None:
    """Draw AP and AP50 of each class, of many classes the best and the worst."""
    del history
    rows = _ends(facts.scored(), _MOST_BARS)[::-1]
    place = np.arange(len(rows))
    axes.barh(place, [one.ap50 for one in rows], color='#f2c9a0', label='AP50')
    axes.barh(place, [one.ap for one in rows], color=_BLUE, height=0.5, label='AP')
    axes.set_yticks(place, [short(one.name) for one in rows])
    for y, one in enumerate(rows):  # AP at the end of its bar: within it, if it is long enough
        is_within = one.ap > _ROOM_FOR_NUMBER
        x, side, ink = (one.ap, 'right', 'white') if is_within else (one.ap50, 'left', 'black')
        axes.text(x, y, f' {one.ap:.2f} ', va='center', ha=side, color=ink, fontsize=8)
    _few_bars(axes, len(rows))
    axes.set(
        xlim=(0, _top([one.ap50 for one in rows]) * 1.08),
        title=_of_classes('AP of each class', facts, len(rows)),
    )
    axes.legend(frameon=False, loc='upper center', bbox_to_anchor=(0.5, -0.06), ncols=2)


def draw_size_ap(axes: 'Axes', facts: Facts, history: History) -> None:
    """Draw AP and the number of objects by COCO's three sizes."""
    del history
    values = [facts.metrics[name] for name in ('mAP_s', 'mAP_m', 'mAP_l')]
    axes.bar(SIZES, [max(value, 0) for value in values], color=_SIZE_COLOURS)
    for place, value in enumerate(values):
        axes.text(
            place, max(value, 0) + 0.02, f'{value:.2f}' if value >= 0 else 'none', ha='center'
        )
    axes.set(ylim=(0, _top(values) * 1.08), ylabel='AP', title='AP by the size of objects')
    axes.set_xticks(range(3), ['small\n(below 32² px)', 'medium\n(below 96²)', 'large'])


def draw_precision_recall(axes: 'Axes', facts: Facts, history: History) -> None:
    """Draw precision against recall at IoU 0.5: the mean, and some classes."""
    del history
    known = facts.precision[:, (facts.precision > -1).any(axis=0)]
    scored = facts.scored()
    for one in _ends(scored, _MOST_LINES):
        label = facts.classes.index(one)
        colour = '#{:02x}{:02x}{:02x}'.format(*class_colour(label))
        axes.plot(
            facts.recall, facts.precision[:, label], color=colour, linewidth=1.2,
            label=f'{short(one.name)}, AP50 {one.ap50:.2f}',
        )  # fmt: skip
    if known.size:
        axes.plot(facts.recall, known.mean(axis=1), color='black', linewidth=2.4, label='mean')
    axes.set(xlim=(0, 1), ylim=(0, _ABOVE_ONE), xlabel='recall', ylabel='precision')
    axes.set_title(_of_classes('Precision and recall at IoU 0.5', facts, min(len(scored), 8)))
    axes.legend(frameon=False, fontsize=8)


def draw_confusion(axes: 'Axes', facts: Facts, history: History) -> None:
    """Draw which class was taken for which, each row as shares of the objects of a class."""
    del history
    chosen = _most_confused(facts)
    names = [*(short(facts.names[label]) for label in chosen), 'background']
    kept = [*chosen, len(facts.classes)]
    counts = facts.confusion[np.ix_(kept, kept)]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap='Blues', vmin=0, vmax=1, aspect='auto')
    for (row, column), count in np.ndenumerate(counts):
        if count:
            ink = 'white' if shares[row, column] > 0.55 else '#222222'
            axes.text(column, row, f'{count}', ha='center', va='center', color=ink, fontsize=8)
    place = range(len(names))
    axes.set_xticks(
        place,
        names,
        rotation=40 if len(names) > 4 else 0,
        ha='right' if len(names) > 4 else 'center',
    )
    axes.set_yticks(place, names)
    axes.set(xlabel='detected as (background: missed)', ylabel='is (background: nothing)')
    axes.set_title(_of_classes(f'Confusion at scores {facts.scores_in_words}', facts, len(chosen)))


def draw_calibration(axes: 'Axes', facts: Facts, history: History) -> None:
    """Draw the share of right detections by their score, and how many there are."""
    del history
    found = facts.calibration
    width = np.diff(found.edges)
    share = found.counts / max(found.counts.sum(), 1)
    axes.bar(
        found.edges[:-1], share, width, align='edge', color='#c9cdd3', label='share of detections'
    )
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle='--', linewidth=1, label='ideal')
    has = found.counts > 0
    axes.plot(
        found.mean_score[has], found.share_right[has], 'o-', color=_BLUE, label='right at IoU 0.5'
    )
    axes.set(xlim=(0, 1), ylim=(0, _ABOVE_ONE), xlabel='score', ylabel='share')
    axes.set_title(f'Scores and how often they are right (error {found.error:.3f})')
    axes.legend(frameon=False, loc='upper left')


def draw_thresholds(axes: 'Axes', facts: Facts, history: History) -> None:
    """Draw for each class the threshold with the highest F1, and that F1."""
    del history
    rows = _ends(facts.scored(), _MOST_BARS)[::-1]
    place = np.arange(len(rows))
    axes.barh(place, [one.cut.f1 for one in rows], color='#bcd5ee', label='highest F1')
    thresholds = [one.cut.threshold for one in rows]
    axes.plot(thresholds, place, 'D', color=_ORANGE, label='at this score threshold')
    axes.axvline(facts.cut.threshold, color=_GREY, linestyle='--', linewidth=1, label='of all')
    axes.set_yticks(place, [short(one.name) for one in rows])
    _few_bars(axes, len(rows))
    axes.set(xlim=(0, _ABOVE_ONE), title=_of_classes('Threshold of each class', facts, len(rows)))
    axes.legend(frameon=False, loc='upper center', bbox_to_anchor=(0.5, -0.06), ncols=3)


def draw_labels(axes: 'Axes', facts: Facts, history: History) -> None:
    """Draw the sides of the evaluated boxes, and which were missed."""
    del history
    truths = [one.truth.boxes[~one.truth.ignored] for one in facts.images]
    boxes = np.concatenate([np.zeros((0, 4)), *truths])
    sides = boxes[:, 2:] - boxes[:, :2]
    step = max(1, len(sides) // 5000)
    shown = sides[::step]
    alpha = 0.35 if len(shown) > _FEW_BOXES else 0.8
    axes.scatter(shown[:, 0], shown[:, 1], s=8, color=_BLUE, alpha=alpha, linewidths=0)
    for side in (32, 96):
        line = np.geomspace(1, max(float(sides.max(initial=100)), 100), 50)
        axes.plot(line, side**2 / line, color=_GREY, linewidth=1, linestyle='--')
    if len(sides):
        low, high = max(sides.min() * 0.8, 0.5), sides.max() * 1.25
        axes.set(xscale='log', yscale='log', xlim=(low, high), ylim=(low, high))
        ticks = [2**power for power in range(14) if low <= 2**power <= high]
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(ticks, [str(tick) for tick in ticks])
            axis.set_ticks([], minor=True)
    axes.set(xlabel='width, pixels', ylabel='height, pixels')
    axes.set_title('Boxes (dashed: areas of 32² and 96² pixels)')


def figure_of(draw: Draw, facts: Facts, history: History) -> bytes:
    """Return one chart as a PNG; high enough for its classes."""
    rows = min(len(facts.scored()), _MOST_BARS)
    tall = draw in (draw_class_ap, draw_thresholds)
    figure = new_figure(6.4, max(4.2, 1.6 + 0.24 * rows) if tall else 4.6)
    draw(figure.add_subplot(), facts, history)
    return to_png(figure)


def overview(title: str, pngs: Sequence[bytes]) -> bytes:
    """Return charts, each a PNG of `figure_of`, as one PNG with a title."""
    tiles = [Image.open(io.BytesIO(png)).convert('RGB') for png in pngs]
    width = max(tile.width for tile in tiles)
    rows = [tiles[first : first + _COLUMNS] for first in range(0, len(tiles), _COLUMNS)]
    heights = [max(tile.height for tile in row) for row in rows]
    canvas = Image.new('RGB', (width * _COLUMNS, _TITLE_PX + sum(heights)), 'white')
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=_TITLE_PX * 0.5)
    pen.text((canvas.width // 2, _TITLE_PX // 2), title, 'black', font, anchor='mm')
    top = _TITLE_PX
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            canvas.paste(tile, (column * width, top))
        top += height
    file = io.BytesIO()
    canvas.save(file, 'PNG')
    return file.getvalue()


def charts(history: History) -> dict[str, Draw]:
    """Return the charts by their titles; the curves only where a training was logged."""
    curves: dict[str, Draw] = {}
    if history.losses:
        curves['Loss'] = draw_losses
    if history.epochs:
        curves['AP over epochs'] = draw_ap_curve
    return curves | {
        'AP per class': draw_class_ap,
        'AP by size': draw_size_ap,
        'Precision and recall': draw_precision_recall,
        'Confusion': draw_confusion,
        'Calibration': draw_calibration,
        'Thresholds': draw_thresholds,
        'Boxes': draw_labels,
    }


def _top(values: Sequence[float]) -> float:
    """Return the end of an axis from 0 on that shows some shares: a little above 1 at most."""
    return min(_ABOVE_ONE, max(1.15 * max(values, default=0), 0.1))


def _few_bars(axes: 'Axes', number: int) -> None:
    """Keep the bars of one or two classes as thin as those of three."""
    spare = max(0, 3 - number) / 2
    axes.set_ylim(-0.6 - spare, number - 0.4 + spare)


def _ends(rows: Sequence[ClassFacts], number: int) -> list[ClassFacts]:
    """Return the first and the last, so many in all."""
    if len(rows) <= number:
        return list(rows)
    half = number // 2
    return [*rows[:half], *rows[-half:]]


def _of_classes(title: str, facts: Facts, shown: int) -> str:
    number = len(facts.scored())
    return title if shown >= number else f'{title} ({shown} of {number})'


def _most_confused(facts: Facts) -> list[int]:
    """Return the labels with the most mistakes among classes, at most 16, in order."""
    inner = facts.confusion[:-1, :-1]
    wrong: Any = inner.sum(axis=0) + inner.sum(axis=1) - 2 * np.diag(inner)
    wrong = wrong + facts.confusion[:-1, -1] / 1e3 + facts.confusion[:-1].sum(axis=1) / 1e6
    return sorted(np.argsort(-wrong, kind='stable')[:_MOST_CELLS].tolist())
