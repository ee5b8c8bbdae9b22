"""What drives a training: optimiser, schedule, moving average, checkpoints, processes."""

from effdet_plugin.engine.checkpoint import AtomicCheckpointHook
from effdet_plugin.engine.ema import RampUpEMA, RampUpEMAHook
from effdet_plugin.engine.fusion_weights import FusionWeightsHook
from effdet_plugin.engine.hooks import DeferredRuntimeInfoHook, FiniteLossHook, ProgressBarHook
from effdet_plugin.engine.load_weights import LoadMatchingHook
from effdet_plugin.engine.optim import ClippedAmpOptimWrapper, ClippedOptimWrapper, WholeEpochHook
from effdet_plugin.engine.param_groups import (
    GroupedOptimWrapperConstructor,
    LayerDecayOptimWrapperConstructor,
)
from effdet_plugin.engine.runner import EfficientDetRunner
from effdet_plugin.engine.sampler import EpochSampler
from effdet_plugin.engine.schedule import ReferenceLR
from effdet_plugin.engine.stopping import StopWhenFlatHook

__all__ = [
    'AtomicCheckpointHook',
    'ClippedAmpOptimWrapper',
    'ClippedOptimWrapper',
    'DeferredRuntimeInfoHook',
    'EfficientDetRunner',
    'EpochSampler',
    'FiniteLossHook',
    'FusionWeightsHook',
    'GroupedOptimWrapperConstructor',
    'LayerDecayOptimWrapperConstructor',
    'LoadMatchingHook',
    'ProgressBarHook',
    'RampUpEMA',
    'RampUpEMAHook',
    'ReferenceLR',
    'StopWhenFlatHook',
    'WholeEpochHook',
]
