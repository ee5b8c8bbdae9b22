"""What drives the training: moving average, optimiser, schedule, checkpoints, processes."""

from effdet_plugin.engine.checkpoint import AtomicBackend, AtomicCheckpointHook
from effdet_plugin.engine.ema import RampUpEMA, RampUpEMAHook
from effdet_plugin.engine.fit import LoadMatchingHook, check_classes, check_fit, load_matching
from effdet_plugin.engine.fusion_weights import FusionWeightsHook
from effdet_plugin.engine.hooks import DeferredRuntimeInfoHook, FiniteLossHook
from effdet_plugin.engine.layer_decay import LayerDecayOptimWrapperConstructor
from effdet_plugin.engine.optim import ClippedAmpOptimWrapper, ClippedOptimWrapper
from effdet_plugin.engine.param_groups import GroupedOptimWrapperConstructor
from effdet_plugin.engine.progress import ProgressBarHook
from effdet_plugin.engine.resume import find_resume
from effdet_plugin.engine.runner import EfficientDetRunner
from effdet_plugin.engine.sampler import EpochSampler
from effdet_plugin.engine.schedule import ReferenceLR
from effdet_plugin.engine.work_dir import check_work_dir

__all__ = [
    'AtomicBackend',
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
    'check_classes',
    'check_fit',
    'check_work_dir',
    'find_resume',
    'load_matching',
]
