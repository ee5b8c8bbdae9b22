"""Parameters of equal settings in one group, so that an optimiser's step is few calls."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.logging import MMLogger, print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

Group = dict[str, Any]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, with one group per setting instead of one per parameter.

    ``paramwise_cfg`` means the same as there. One group per parameter keeps ``foreach`` and fused
    optimisers from doing more than one tensor at a time, and every schedule and log line walks over
    hundreds of groups. Groups are in the order of their first parameter, parameters in the model's.
    """

    def add_params(
        self,
        params: list[Group],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add the parameters of ``module``; see mmengine.

        Args:
            params: Groups to add to; changed in place.
            module: Module to add.
            prefix: Name of the module in the model; empty for the model itself.
            is_dcn_module: Whether it is part of a deformable convolution.
        """
        if prefix:
            super().add_params(params, module, prefix, is_dcn_module)
            return
        with _without_lines('paramwise_options'):  # one or more per parameter
            super().add_params(params, module, prefix, is_dcn_module)
        params[:] = merge_groups(params)
        for group in params:
            print_log(describe_group(group), logger='current')


def merge_groups(groups: list[Group]) -> list[Group]:
    """Merge groups that differ in nothing but their parameters."""
    merged: dict[str, Group] = {}
    for group in groups:
        settings = {k: v for k, v in sorted(group.items()) if k != 'params'}
        own = merged.setdefault(repr(settings), {'params': [], **settings})
        own['params'].extend(group['params'])
    return list(merged.values())


def describe_group(group: Group) -> str:
    """Return one line for the log: how many tensors, and what is special about them."""
    special = ', '.join(f'{k}={v:g}' for k, v in group.items() if isinstance(v, int | float))
    return f'Parameter group of {len(group["params"])} tensors: {special or "default settings"}'


@contextmanager
def _without_lines(beginning: str) -> Iterator[None]:
    """Keep lines that begin so, and one for each frozen parameter, out of mmengine's log."""
    logger = MMLogger.get_current_instance()

    def wanted(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not (message.startswith(beginning) or message.endswith('requires_grad=False'))

    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)
