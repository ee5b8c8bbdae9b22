"""The paper's comparisons: what each costs, how fast it is, and what it reaches on a data set."""

from effdet_plugin.ablation.cells import Cell, CellSettings, finished_cells, run_cells
from effdet_plugin.ablation.latency import measure_configs, measure_latency
from effdet_plugin.ablation.plot import plot_quality, quality_cells
from effdet_plugin.ablation.published import PAPER, Paper
from effdet_plugin.ablation.table import (
    Row,
    ablation_configs,
    count_rows,
    to_cells,
    to_markdown,
    to_text,
)

__all__ = [
    'PAPER',
    'Cell',
    'CellSettings',
    'Paper',
    'Row',
    'ablation_configs',
    'count_rows',
    'finished_cells',
    'measure_configs',
    'measure_latency',
    'plot_quality',
    'quality_cells',
    'run_cells',
    'to_cells',
    'to_markdown',
    'to_text',
]
