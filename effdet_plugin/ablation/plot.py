"""What the cells of an ablation reached: a table, and a picture of AP against multiply-adds."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean

from effdet_plugin.ablation.cells import Cell
from effdet_plugin.files import replacing


def group_cells(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Return the cells of each config, its seeds in order."""
    groups: dict[str, list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.multiply_adds, cell.name, cell.seed)):
        groups.setdefault(cell.name, []).append(cell)
    return groups


def quality_cells(cells: Iterable[Cell]) -> list[list[str]]:
    """Return a table's cells, header first: mean and every seed's AP and AP50 of each config."""
    header = ['config', 'parameters', 'multiply-adds', 'seeds', 'AP', 'each', 'AP50', 'each', 'min']
    return [header] + [
        [
            name,
            f'{group[0].parameters / 1e6:.2f}M',
            f'{group[0].multiply_adds / 1e9:.2f}G',
            str(len(group)),
            *_mean_and_each([cell.ap for cell in group]),
            *_mean_and_each([cell.ap50 for cell in group]),
            f'{mean(cell.minutes for cell in group):.1f}',
        ]
        for name, group in group_cells(cells).items()
    ]


def _mean_and_each(values: Sequence[float]) -> tuple[str, str]:
    return f'{mean(values):.3f}', ' '.join(f'{value:.3f}' for value in values)


def plot_quality(cells: Iterable[Cell], path: Path) -> None:
    """Draw AP against multiply-adds: the mean of each config, and small every seed's.

    Multiply-adds begin at 0: configs that cost about the same stand at about the same place.

    Args:
        cells: Finished ones.
        path: Picture to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout='constrained')
    axis = figure.subplots()
    for name, group in group_cells(cells).items():
        cost, values = group[0].multiply_adds / 1e9, [cell.ap for cell in group]
        (middle,) = axis.plot(cost, mean(values), 'o', label=f'{name} ({len(group)} seeds)')
        axis.plot([cost] * len(values), values, '.-', color=middle.get_color(), alpha=0.5)
    axis.set_xlim(0, 1.1 * axis.dataLim.xmax)
    axis.set_xlabel('multiply-adds of one image [G]')
    axis.set_ylabel('AP: mean, and each seed')
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    with replacing(path) as part:
        figure.savefig(part, dpi=120)
