"""AP against parameters, multiply-adds and measured time, as the reference's README draws it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from effdet_plugin.costs import CostRow
from effdet_plugin.errors import ConfigError
from effdet_plugin.files import write_atomically
from effdet_plugin.report.figures import new_figure, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Rows whose names begin so are one line; the longer beginning first.
_FAMILIES = {'lite': ('EfficientDet-Lite', '#d9730d'), 'd': ('EfficientDet', '#2563ad')}
# From a point in points: D7's labels stand where its line does not run.
_ABOVE, _BELOW = (-4, 5), (5, -11)


def check_plot_file(path: Path) -> None:
    """Raise ConfigError unless a plot can have this name; counting takes half a minute."""
    if path.suffix.lower() != '.png':
        raise ConfigError(f'--plot {path}: give the name of a .png')


def plot_costs(rows: Iterable[CostRow], path: Path, measured_on: str = '') -> None:
    """Draw the reference's AP over the costs of networks, and write it as a PNG.

    Args:
        rows: Networks; those without a published AP are left out. Their times are drawn, too, if
            all have one.
        path: File, ``.png``.
        measured_on: The machine of the times.

    Raises:
        ConfigError: No network has a published AP.
    """
    rows = [row for row in rows if row.published]
    if not rows:
        raise ConfigError('--plot: none of these networks has a published AP to draw')
    times = [row.latency_ms for row in rows if row.latency_ms is not None]
    is_timed = len(times) == len(rows)
    figure = new_figure(16 if is_timed else 11, 4.8)
    left, right, *more = figure.subplots(1, 3 if is_timed else 2, sharey=True)
    _draw(left, rows, [row.costs.parameters / 1e6 for row in rows])
    _draw(right, rows, [row.costs.multiply_adds / 1e9 for row in rows])
    left.set(title='AP and parameters', xlabel='parameters, millions')
    left.set_ylabel('AP on COCO val2017, % (published by google/automl)')
    right.set(title='AP and multiply-adds', xlabel='multiply-adds of one image, billions')
    for axes in more:
        _draw(axes, rows, times)
        axes.set(title='AP and time', xlabel=f'ms of the network for one image\n{measured_on}')
    left.legend(frameon=False, loc='lower right')
    write_atomically(path, to_png(figure))


def _draw(axes: 'Axes', rows: Sequence[CostRow], costs: Sequence[float]) -> None:
    """Draw a line of each family, with the networks' names; the axis of costs is logarithmic."""
    left = {row.name: (cost, row.published.ap) for row, cost in zip(rows, costs, strict=True)
            if row.published}  # fmt: skip
    for start, (family, colour) in _FAMILIES.items():
        points = {name: left.pop(name) for name in list(left) if name.startswith(start)}
        if not points:
            continue
        x, y = zip(*points.values(), strict=True)
        axes.plot(x, y, 'o-', color=colour, label=family, markersize=5, linewidth=1.6)
        for name, point in points.items():
            above = start == 'd'
            axes.annotate(
                name.capitalize(),
                point,
                xytext=_ABOVE if above else _BELOW,
                textcoords='offset points',
                ha='right' if above else 'left',
                fontsize=8,
                color=colour,
            )
    axes.set_xscale('log')
    low, high = min(costs) / 1.25, max(costs) * 1.25
    ticks = [m * 10.0**power for power in range(-1, 5) for m in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    axes.set_xlim(low, high)
    axes.xaxis.set_ticks(ticks, [f'{tick:g}' for tick in ticks])
    axes.xaxis.set_ticks([], minor=True)
    axes.grid(alpha=0.25)
