"""Parameter groups: one for each setting, and a learning rate that falls towards the stem."""

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.logging import MMLogger, print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from effdet_plugin.errors import ConfigError

Group = dict[str, Any]
# How timm and mmdet number the stages of a backbone: blocks.3, layer2, stages.1, stages_1.
_STAGE = re.compile(r'\.(?:blocks|layer|stages?)[._]?(\d+)')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, with one group per setting instead of one per parameter.

    ``paramwise_cfg`` means the same as there. With one group per parameter ``foreach`` and fused
    optimisers update one tensor at a time, and every schedule and log line loops over hundreds of
    groups. Groups are in the order of their first parameter, parameters in the model's.

    torch's SGD, Adam and AdamW update all tensors in one call (``fused=True``) unless the config
    says ``fused`` or ``foreach``: torch's own default updates tensor by tensor on CPUs.
    """

    optimizer_cfg: dict[str, Any]

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimiser of ``model`` and its wrapper."""
        self.optimizer_cfg = _fused(self.optimizer_cfg, model)
        return super().__call__(model)

    def _validate_cfg(self) -> None:
        """Refuse to scale a weight decay that is not there; see mmengine."""
        named = self.paramwise_cfg.get('custom_keys') or {}
        keys = [*self.paramwise_cfg, *(key for settings in named.values() for key in settings)]
        scales = [key for key in keys if key.endswith('decay_mult')]
        if scales and self.optimizer_cfg.get('weight_decay') is None:
            raise ConfigError(
                f'optim_wrapper.optimizer has no weight_decay, which {scales[0]} of paramwise_cfg '
                'multiplies: write weight_decay=0 (or another) into it'
            )
        super()._validate_cfg()

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
        # mmengine calls this for each child, too; the model's own call is the last to return.
        if prefix:
            super().add_params(params, module, prefix, is_dcn_module)
            return
        with _quiet_log():
            super().add_params(params, module, prefix, is_dcn_module)
        params[:] = _merge(params)
        for group in params:
            numbers = (f'{k}={v:g}' for k, v in group.items() if isinstance(v, int | float))
            settings = ', '.join(numbers) or 'default settings'
            line = f'Parameter group of {len(group["params"])} tensors: {settings}'
            print_log(line, logger='current')


def _fused(optimizer: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Return the optimiser's config with torch's fused update where it leaves the choice open."""
    is_open = not {'fused', 'foreach', 'differentiable'} & optimizer.keys()
    trained = [p for p in model.parameters() if p.requires_grad]
    is_possible = all(p.device.type in ('cpu', 'cuda') and p.is_floating_point() for p in trained)
    if is_open and is_possible and optimizer.get('type') in ('SGD', 'Adam', 'AdamW'):
        return {**optimizer, 'fused': True}
    return optimizer


def _merge(groups: list[Group]) -> list[Group]:
    """Merge groups that differ in nothing but their parameters."""
    merged: dict[str, Group] = {}
    for group in groups:
        settings = {k: v for k, v in sorted(group.items()) if k != 'params'}
        # By text, since settings may be lists (betas of Adam), which cannot be keys.
        own = merged.setdefault(repr(settings), {'params': [], **settings})
        own['params'].extend(group['params'])
    return list(merged.values())


@contextmanager
def _quiet_log() -> Iterator[None]:
    """Keep mmengine's lines for single parameters, hundreds of them, out of the log."""
    logger = MMLogger.get_current_instance()

    def is_wanted(record: logging.LogRecord) -> bool:
        line = record.getMessage()
        return not (line.startswith('paramwise_options') or line.endswith('requires_grad=False'))

    logger.addFilter(is_wanted)
    try:
        yield
    finally:
        logger.removeFilter(is_wanted)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(GroupedOptimWrapperConstructor):
    """`GroupedOptimWrapperConstructor` with a ``layer_decay`` in its ``paramwise_cfg``.

    The last stage of the backbone learns at ``lr * layer_decay``, the one before at ``lr *
    layer_decay ** 2``, and so on to the stem; neck and head learn at ``lr``. mmengine's
    ``custom_keys`` could set these rates, but a parameter that one of them names ignores
    ``norm_decay_mult`` and ``bias_decay_mult``.

        optim_wrapper = dict(
            constructor='LayerDecayOptimWrapperConstructor', paramwise_cfg=dict(layer_decay=0.7)
        )

    Raises:
        ConfigError: ``layer_decay`` is missing or not in (0, 1].
    """

    def __init__(
        self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None
    ) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        self.layer_decay = self.paramwise_cfg.get('layer_decay')
        if self.layer_decay is None or not 0 < self.layer_decay <= 1:
            raise ConfigError(
                f'paramwise_cfg.layer_decay={self.layer_decay!r} must be in (0, 1], e.g. 0.7'
            )

    def add_params(
        self,
        params: list[Group],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add the parameters of ``module``; see mmengine."""
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:
            return
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        depths = stage_depths(names.values())
        split: list[Group] = []
        for group in params:
            by_depth: dict[int, Group] = {}
            for parameter in group['params']:
                depth = depths.get(names[id(parameter)], 0)  # 0: neck and head
                lr = group.get('lr', self.base_lr) * self.layer_decay**depth
                own = by_depth.setdefault(depth, {**group, 'params': [], 'lr': lr})
                own['params'].append(parameter)
            split += by_depth.values()
        params[:] = split
        rates = sorted({f'{group["lr"]:.3g}' for group in params}, key=float)
        print_log(f'Learning rates from stem to head: {", ".join(rates)}', logger='current')


def stage_depths(names: Iterable[str]) -> dict[str, int]:
    """Return how many stages before the neck each parameter of a backbone is: 1 is the last stage.

    Args:
        names: Of parameters, in the model's order; those outside of the backbone are left out.
            Those before the first stage are one deeper than it; one without a stage after it
            belongs to the stage before.
    """
    own = [name for name in names if name.removeprefix('module.').startswith('backbone.')]
    numbers = [int(match[1]) if (match := _STAGE.search(name)) else None for name in own]
    stages = sorted({number for number in numbers if number is not None})
    depth = len(stages) + 1
    depths: dict[str, int] = {}
    for name, number in zip(own, numbers, strict=True):
        depth = depth if number is None else len(stages) - stages.index(number)
        depths[name] = depth
    return depths
