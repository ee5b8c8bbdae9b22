"""The table of an ablation: each config's cost, and its feature network's beside the paper's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from effdet_plugin.ablation.latency import Latency
from effdet_plugin.ablation.published import BASELINES, PAPER, Paper
from effdet_plugin.benchmark.counting import Costs, build_on_meta, count_costs
from effdet_plugin.config import Options, load

CLASSES_OF_THE_PAPER = 90
_NECK = ('extra_levels', 'bifpn')


@dataclass(frozen=True)
class Row:
    """One config.

    Attributes:
        name: The file's.
        image_size: (height, width) in pixels.
        costs: Of the whole network.
        parameters_ratio: Feature network's, to that of its table's baseline; None without one.
        multiply_adds_ratio: The same.
    """

    name: str
    image_size: tuple[int, int]
    costs: Costs
    parameters_ratio: float | None = None
    multiply_adds_ratio: float | None = None

    @property
    def paper(self) -> Paper | None:
        """The paper's figures; None for what is not in the paper."""
        return PAPER.get(self.name)


def ablation_configs(root: Path) -> list[Path]:
    """Return the configs of the paper's tables below a clone's folder, in the paper's order.

    Args:
        root: The clone.
    """
    found = sorted((root / 'configs' / 'ablation').glob('table*.py'))
    order = list(PAPER)
    return sorted(found, key=lambda p: order.index(p.stem) if p.stem in PAPER else len(order))


def count_rows(
    configs: Iterable[Path],
    num_classes: int = CLASSES_OF_THE_PAPER,
    image_size: str | int | tuple[int, int] | None = None,
    options: Options | None = None,
) -> list[Row]:
    """Build each config's network on the meta device and count it.

    Args:
        configs: Config files; ratios are to the baseline among them, if it is there.
        num_classes: In place of the configs'.
        image_size: In place of the configs'; see `effdet_plugin.config.parse_size`.
        options: ``--cfg-options``, for all.

    Raises:
        ConfigError: A config cannot be used.
    """
    loaded = {path.stem: load(path, image_size=image_size, options=options) for path in configs}
    costs = {name: _count(cfg, num_classes) for name, cfg in loaded.items()}
    return [
        Row(name, size_of(cfg), costs[name], *_ratios(name, costs)) for name, cfg in loaded.items()
    ]


def size_of(cfg: Config) -> tuple[int, int]:
    """Return a config's input size, (height, width)."""
    return int(cfg.image_size[0]), int(cfg.image_size[1])


def _count(cfg: Config, num_classes: int) -> Costs:
    return count_costs(build_on_meta(cfg.model, num_classes), size_of(cfg))


def _ratios(name: str, costs: Mapping[str, Costs]) -> tuple[float | None, float | None]:
    """Feature network's parameters and multiply-adds, over those of the table's baseline."""
    baseline = costs.get(BASELINES.get(name.partition('_')[0], ''))
    if baseline is None or not all(part in costs[name].parameters_by_part for part in _NECK):
        return None, None
    ratios = [
        sum(getattr(costs[name], key)[part] for part in _NECK)
        / sum(getattr(baseline, key)[part] for part in _NECK)
        for key in ('parameters_by_part', 'multiply_adds_by_part')
    ]
    return ratios[0], ratios[1]


def _number(value: float | None, form: str) -> str:
    return '-' if value is None else format(value, form)


def _rounded(value: float | None, unit: float, letter: str) -> str:
    return '-' if value is None else f'{value / unit:.0f}{letter}'


Latencies = Mapping[str, Latency]
# Header, and the cell of a row beside the paper's figures.
_COLUMNS: Sequence[tuple[str, Callable[[Row, Paper | None, Latencies], str]]] = (
    ('config', lambda row, paper, times: row.name),
    ('size', lambda row, paper, times: '{1}x{0}'.format(*row.image_size)),
    ('parameters', lambda row, paper, times: f'{row.costs.parameters / 1e6:.2f}M'),
    ('paper', lambda row, paper, times: _rounded(paper and paper.parameters, 1e6, 'M')),
    ('multiply-adds', lambda row, paper, times: f'{row.costs.multiply_adds / 1e9:.2f}G'),
    ('paper', lambda row, paper, times: _rounded(paper and paper.multiply_adds, 1e9, 'B')),
    ('neck parameters', lambda row, paper, times: _number(row.parameters_ratio, '.3f')),
    ('paper', lambda row, paper, times: _number(paper and paper.parameters_ratio, '.2f')),
    ('neck multiply-adds', lambda row, paper, times: _number(row.multiply_adds_ratio, '.3f')),
    ('paper', lambda row, paper, times: _number(paper and paper.multiply_adds_ratio, '.2f')),
    ('AP of the paper', lambda row, paper, times: _number(paper and paper.ap, '.2f')),
    ('ms', lambda row, paper, times: _latency(row.name, times)),
    ('speed-up', lambda row, paper, times: _number(_speedup(row.name, times), '.2f')),
    ('paper', lambda row, paper, times: _number(paper and paper.speedup, '.2f')),
)


def to_cells(rows: Iterable[Row], latencies: Latencies | None = None) -> list[list[str]]:
    """Return the table's cells, header first; ``-`` where there is no figure.

    A column without any figure, such as the paper's for configs of one's own, is left out.

    Args:
        rows: From `count_rows`.
        latencies: From `effdet_plugin.ablation.measure_latency`, by name.
    """
    columns = _COLUMNS if latencies else _COLUMNS[:-3]
    rows = list(rows)
    filled = [
        [header, *(cell(row, row.paper, latencies or {}) for row in rows)]
        for header, cell in columns
    ]
    kept = [column for column in filled if set(column[1:]) != {'-'}]
    return [list(line) for line in zip(*kept, strict=True)]


def _latency(name: str, latencies: Latencies) -> str:
    time = latencies.get(name)
    return f'{time.median_ms:.1f} ({time.spread_ms:.1f})' if time else '-'


def _speedup(name: str, latencies: Latencies) -> float | None:
    """How many times as fast as the table's baseline; the paper has it in table 6."""
    baseline = latencies.get(BASELINES.get(name.partition('_')[0], ''))
    if baseline is None or name not in latencies:
        return None
    return baseline.median_ms / latencies[name].median_ms


def to_text(cells: Sequence[Sequence[str]]) -> str:
    """Return an aligned table for a console."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return '\n'.join(
        '  '.join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def to_markdown(cells: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ['| ' + ' | '.join(line) + ' |' for line in cells]
    lines.insert(1, '| :-- |' + ' --: |' * (len(cells[0]) - 1))
    return '\n'.join(lines)
