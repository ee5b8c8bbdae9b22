"""Training and evaluation as the tools start them: one call each."""

from effdet_plugin.training.evaluate import TestSettings, evaluate, numbers_table
from effdet_plugin.training.settings import Prepared, TrainSettings, prepare
from effdet_plugin.training.train import dry_run, train

__all__ = [
    'Prepared',
    'TestSettings',
    'TrainSettings',
    'dry_run',
    'evaluate',
    'numbers_table',
    'prepare',
    'train',
]
