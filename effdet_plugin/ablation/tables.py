"""Tables of an ablation (costs and latency beside the paper's, AP of trials) and a plot of AP."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean

from effdet_plugin.ablation.latency import Latency
from effdet_plugin.ablation.trials import Trial
from effdet_plugin.costs import PAPER, CostRow, Published
from effdet_plugin.files import replacing

_NECK = ('extra_levels', 'bifpn')
# Config that the others of its table are compared to, by the first word of their names.
_BASELINES = {'table5': 'table5_fpn_panet', 'lite0': 'lite0_fpn_panet', 'table6': 'table6_softmax'}
_COST_HEADER = (
    *('config', 'size', 'parameters', 'paper', 'multiply-adds', 'paper', 'neck parameters'),
    *('paper', 'neck multiply-adds', 'paper', 'AP of the paper', 'ms', 'speed-up', 'paper'),
)
_NO_FIGURES = Published(0.0)  # stands for configs that are not in the paper


def ablation_configs(root: Path) -> list[Path]:
    """Return the configs of the paper's tables, in the paper's order.

    Args:
        root: The repository.
    """
    found = sorted((root / 'configs' / 'ablation').glob('table*.py'))
    order = list(PAPER)
    return sorted(found, key=lambda p: order.index(p.stem) if p.stem in PAPER else len(order))


def cost_table(
    rows: Sequence[CostRow], latencies: Mapping[str, Latency] | None = None
) -> list[list[str]]:
    """Return the lines of the table of costs, header first; ``-`` where there is no figure.

    Columns without any figure, such as the paper's for user configs, are left out.

    Args:
        rows: From `effdet_plugin.costs.count_rows`; neck ratios are relative to the baseline among
            them, if it is there.
        latencies: From `effdet_plugin.ablation.measure_latency`, by name.
    """
    lines = [_cost_line(row, rows, latencies or {}) for row in rows]
    columns = [[header, *(line[i] for line in lines)] for i, header in enumerate(_COST_HEADER)]
    if not latencies:
        columns = columns[:-3]
    kept = [column for column in columns if set(column[1:]) != {'-'}]
    return [list(line) for line in zip(*kept, strict=True)]


def _cost_line(
    row: CostRow, rows: Iterable[CostRow], latencies: Mapping[str, Latency]
) -> list[str]:
    paper = PAPER.get(row.name, _NO_FIGURES)
    ratios = neck_ratios(row, rows)
    latency = latencies.get(row.name)
    baseline = latencies.get(_baseline(row.name))
    speedup = baseline.median_ms / latency.median_ms if baseline and latency else None
    return [
        row.name,
        row.size,
        f'{row.costs.parameters / 1e6:.2f}M',
        f'{paper.parameters / 1e6:.0f}M' if paper.parameters else '-',
        f'{row.costs.multiply_adds / 1e9:.2f}G',
        f'{paper.multiply_adds / 1e9:.0f}B' if paper.multiply_adds else '-',
        _number(ratios[0], 3),
        _number(paper.parameters_ratio, 2),
        _number(ratios[1], 3),
        _number(paper.multiply_adds_ratio, 2),
        _number(paper.ap or None, 2),
        f'{latency.median_ms:.1f} ({latency.spread_ms:.1f})' if latency else '-',
        _number(speedup, 2),
        _number(paper.speedup, 2),
    ]


def neck_ratios(row: CostRow, rows: Iterable[CostRow]) -> tuple[float | None, float | None]:
    """Return the neck's parameters and multiply-adds relative to those of the table's baseline.

    Args:
        row: A row of the table.
        rows: All its rows. If the baseline is not among them, the ratios are None.
    """
    baseline = next((one.costs for one in rows if one.name == _baseline(row.name)), None)
    if baseline is None or not all(part in row.costs.parameters_by_part for part in _NECK):
        return None, None
    parameters, multiply_adds = (
        sum(getattr(row.costs, key)[part] for part in _NECK)
        / sum(getattr(baseline, key)[part] for part in _NECK)
        for key in ('parameters_by_part', 'multiply_adds_by_part')
    )
    return parameters, multiply_adds


def _baseline(name: str) -> str:
    return _BASELINES.get(name.partition('_')[0], '')


def _number(value: float | None, digits: int) -> str:
    return '-' if value is None else f'{value:.{digits}f}'


def _by_config(trials: Iterable[Trial]) -> dict[str, list[Trial]]:
    """Return the trials of each config in order of their seeds, cheap configs first."""
    groups: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=lambda trial: (trial.multiply_adds, trial.name, trial.seed)):
        groups.setdefault(trial.name, []).append(trial)
    return groups


def quality_table(trials: Iterable[Trial]) -> list[list[str]]:
    """Return the lines of the table of trials, header first: AP and AP50 by config and seed."""
    header = ['config', 'parameters', 'multiply-adds', 'seeds', 'AP', 'each', 'AP50', 'each', 'min']
    return [header] + [
        [
            name,
            f'{group[0].parameters / 1e6:.2f}M',
            f'{group[0].multiply_adds / 1e9:.2f}G',
            str(len(group)),
            *_mean_and_each([trial.ap for trial in group]),
            *_mean_and_each([trial.ap50 for trial in group]),
            f'{mean(trial.minutes for trial in group):.1f}',
        ]
        for name, group in _by_config(trials).items()
    ]


def _mean_and_each(values: Sequence[float]) -> tuple[str, str]:
    return f'{mean(values):.3f}', ' '.join(f'{value:.3f}' for value in values)


def plot_quality(trials: Iterable[Trial], path: Path) -> None:
    """Plot AP against multiply-adds: each config's mean, and its seeds as small dots.

    Args:
        trials: Finished trials.
        path: Image to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout='constrained')
    axis = figure.subplots()
    for name, group in _by_config(trials).items():
        cost, values = group[0].multiply_adds / 1e9, [trial.ap for trial in group]
        (middle,) = axis.plot(cost, mean(values), 'o', label=f'{name} ({len(group)} seeds)')
        axis.plot([cost] * len(values), values, '.-', color=middle.get_color(), alpha=0.5)
    # From 0 on, so that configs of about equal cost are shown at about the same place.
    axis.set_xlim(0, 1.1 * axis.dataLim.xmax)
    axis.set_xlabel('multiply-adds of one image [G]')
    axis.set_ylabel('AP: mean and each seed')
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    with replacing(path) as part:
        figure.savefig(part, dpi=120)
