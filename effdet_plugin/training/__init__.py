"""Training and evaluation, one call each, as the tools start them."""

from effdet_plugin.training.evaluate import TestSettings, evaluate, metrics_table
from effdet_plugin.training.export_trained import (
    best_checkpoint,
    check_export,
    export_trained,
    next_command,
)
from effdet_plugin.training.plain import plain_settings
from effdet_plugin.training.running import check_device
from effdet_plugin.training.train import Prepared, TrainSettings, dry_run, prepare, train

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
