"""What drives the training: moving average, optimiser, schedule, checkpoints, processes."""

from effdet_plugin.engine.ema import RampUpEMA, RampUpEMAHook
from effdet_plugin.engine.optim import ClippedAmpOptimWrapper, ClippedOptimWrapper
from effdet_plugin.engine.param_groups import GroupedOptimWrapperConstructor
from effdet_plugin.engine.sampler import EpochSampler
from effdet_plugin.engine.schedule import ReferenceLR

__all__ = [
    'ClippedAmpOptimWrapper',
    'ClippedOptimWrapper',
    'EpochSampler',
    'GroupedOptimWrapperConstructor',
    'RampUpEMA',
    'RampUpEMAHook',
    'ReferenceLR',
]
