"""Whether a checkpoint is of the training that is to be resumed: network, optimizer, average."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.optim import OptimWrapper
from torch import nn

from effdet_plugin.engine.checkpoint import OPTIMIZER
from effdet_plugin.engine.load_weights import check_compatible, weights_of
from effdet_plugin.errors import CheckpointError

# Switches of the implementation, which differ between versions of torch.
_SWITCHES = {
    'foreach', 'maximize', 'capturable', 'differentiable', 'fused', 'decoupled_weight_decay',
}  # fmt: skip
_ADVICE = 'resume with the config it was trained with'


def check_continues(
    path: Path | str,
    checkpoint: Mapping[str, Any],
    model: nn.Module,
    wrapper: OptimWrapper,
    has_average: bool,
) -> None:
    """Refuse to resume a training with another network, optimizer or without its moving average.

    mmengine keeps initial values where tensors do not fit, ends in a traceback where groups do not,
    and trains the average on where nothing averages.

    Args:
        path: The file, for the line.
        checkpoint: Its content; see `effdet_plugin.engine.resume.check_resumable`.
        model: Network of the config, not wrapped.
        wrapper: Its optimizer; a dict of several is not checked.
        has_average: Whether a hook of the config keeps a moving average of the weights.

    Raises:
        CheckpointError: One line that says what differs.
    """
    try:
        weights, own = weights_of(checkpoint), model.state_dict()
        check_compatible(weights, own, complete=True)
        if unused := sorted(weights.keys() - own.keys()):
            raise CheckpointError(
                f'{len(unused)} tensors of the checkpoint are not in the network of the config, '
                f'e.g. {unused[0]}: {_ADVICE}'
            )
        _check_average(checkpoint, has_average)
        _check_optimizer(checkpoint, wrapper)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from None


def _check_average(checkpoint: Mapping[str, Any], has_average: bool) -> None:
    if 'ema_state_dict' in checkpoint and not has_average:
        raise CheckpointError(
            'the checkpoint was trained with a moving average of the weights, for which the config '
            f'has no hook (RampUpEMAHook, EMAHook): {_ADVICE}, or start a new run from it by '
            'load_from'
        )


def _check_optimizer(checkpoint: Mapping[str, Any], wrapper: OptimWrapper) -> None:
    optimizer = getattr(wrapper, 'optimizer', None)
    saved = checkpoint.get('optimizer') or {}
    if optimizer is None or 'param_groups' not in saved:
        return
    name = checkpoint['meta'].get(OPTIMIZER)
    own = type(optimizer).__name__
    if name not in (None, own):
        raise CheckpointError(f'the optimizer of the checkpoint is {name}, not {own}: {_ADVICE}')
    unknown = optimizer.defaults.keys() - saved['param_groups'][0].keys() - _SWITCHES
    if name is None and unknown:
        raise CheckpointError(
            f'the optimizer of the checkpoint has no {min(unknown)}, so it was not {own}: {_ADVICE}'
        )
    there, here = (
        [len(group['params']) for group in groups]
        for groups in (saved['param_groups'], optimizer.param_groups)
    )
    if there != here:
        raise CheckpointError(
            f'the optimizer of the checkpoint has {sum(there)} parameters in {len(there)} groups, '
            f'that of the config {sum(here)} in {len(here)} (frozen layers, paramwise_cfg): '
            f'{_ADVICE}'
        )
