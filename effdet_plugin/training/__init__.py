"""Training and evaluation, one call each, as the tools start them."""

from effdet_plugin.training.dry_run import dry_run
from effdet_plugin.training.evaluate import TestSettings, evaluate, metrics_table
from effdet_plugin.training.export_trained import check_export, export_trained
from effdet_plugin.training.plain import plain_settings
from effdet_plugin.training.reporting import best_checkpoint, next_command
from effdet_plugin.training.running import check_device
from effdet_plugin.training.settings import TrainSettings
from effdet_plugin.training.train import Prepared, prepare, train

__all__ = [
    'Prepared',
    'TestSettings',
    'TrainSettings',
    'best_checkpoint',
    'check_device',
    'check_export',
    'dry_run',
    'evaluate',
    'export_trained',
    'metrics_table',
    'next_command',
    'plain_settings',
    'prepare',
    'train',
]
