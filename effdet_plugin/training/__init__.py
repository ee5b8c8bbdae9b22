"""Training and evaluation, one call each, as the tools start them."""

from effdet_plugin.training.evaluate import TestSettings, evaluate, metrics_table
from effdet_plugin.training.train import Prepared, TrainSettings, dry_run, prepare, train

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
