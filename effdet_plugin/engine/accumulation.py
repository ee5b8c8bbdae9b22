"""Gradient accumulation: the gradients of several batches make one update of the weights."""

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn


def batches_per_update(optim_wrapper: OptimWrapper | OptimWrapperDict) -> int:
    """Return ``accumulative_counts``; 1 for several optimizers, which mmengine does not count."""
    return int(getattr(optim_wrapper, '_accumulative_counts', 1))


def has_updated(optim_wrapper: OptimWrapper | OptimWrapperDict) -> bool:
    """Whether the batch that was trained last has ended in an update of the weights."""
    return batches_per_update(optim_wrapper) == 1 or optim_wrapper.should_update()


@HOOKS.register_module()
class WholeEpochHook(Hook):
    """Ends each epoch with an update, of the batches that are left.

    mmengine keeps their gradients for the next epoch. No checkpoint holds gradients, so a resumed
    run would lose them.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Count the batches of this epoch alone."""
        if batches_per_update(runner.optim_wrapper) > 1 and isinstance(
            runner.train_loop, EpochBasedTrainLoop
        ):
            # An empty network: mmengine would warn of BN in each epoch, and has done so already.
            runner.optim_wrapper.initialize_count_status(
                nn.Identity(), 0, len(runner.train_dataloader)
            )
