"""Training and evaluation, one call each, as the tools start them."""

from effdet_plugin.training.evaluate import TestSettings, evaluate, metrics_table
from effdet_plugin.training.settings import Prepared, TrainSettings, prepare
from effdet_plugin.training.train import dry_run, train

__all__ = [
    'Prepared',
    'TestSettings',
    'TrainSettings',
    'dry_run',
    'evaluate',
    'metrics_table',
    'prepare',
    'train',
]
