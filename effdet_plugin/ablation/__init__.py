"""The paper's ablations: cost, latency, and AP of trainings on a dataset."""

from effdet_plugin.ablation.latency import measure_configs, measure_latency
from effdet_plugin.ablation.tables import (
    ablation_configs,
    cost_table,
    neck_ratios,
    plot_quality,
    quality_table,
)
from effdet_plugin.ablation.trials import Trial, TrialSettings, run_trials

__all__ = [
    'Trial',
    'TrialSettings',
    'ablation_configs',
    'cost_table',
    'measure_configs',
    'measure_latency',
    'neck_ratios',
    'plot_quality',
    'quality_table',
    'run_trials',
]
