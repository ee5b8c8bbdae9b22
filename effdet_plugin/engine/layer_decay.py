"""A learning rate that falls from the head to the stem of the backbone, stage by stage."""

import re
from collections.abc import Iterable
from typing import Any

from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.logging import print_log
from torch import nn

from effdet_plugin.engine.param_groups import Group, GroupedOptimWrapperConstructor
from effdet_plugin.errors import ConfigError

# How timm and mmdet number the stages of a backbone: blocks.3, layer2, stages.1, stages_1.
_STAGE = re.compile(r'\.(?:blocks|layer|stages?)[._]?(\d+)')
_BACKBONE = 'backbone.'


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(GroupedOptimWrapperConstructor):
    """`GroupedOptimWrapperConstructor` with a ``layer_decay`` in its ``paramwise_cfg``.

    The last stage of the backbone learns at ``lr * layer_decay``, the one before at ``lr *
    layer_decay ** 2``, and so on to the stem; neck and head learn at ``lr``. mmengine's
    ``custom_keys`` could say the same, but a parameter that one of them names is exempt from
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
        if not prefix:
            params[:] = self._split(params, module)
            rates = sorted({f'{group["lr"]:.3g}' for group in params}, key=float)
            print_log(f'Learning rates from stem to head: {", ".join(rates)}', logger='current')

    def _split(self, groups: list[Group], model: nn.Module) -> list[Group]:
        """Split each group by the depth of its parameters in the backbone."""
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        depths = stage_depths(names.values())
        split: list[Group] = []
        for group in groups:
            by_depth: dict[int, Group] = {}
            for parameter in group['params']:
                depth = depths.get(names[id(parameter)], 0)
                lr = group.get('lr', self.base_lr) * self.layer_decay**depth
                own = by_depth.setdefault(depth, {**group, 'params': [], 'lr': lr})
                own['params'].append(parameter)
            split += by_depth.values()
        return split


def stage_depths(names: Iterable[str]) -> dict[str, int]:
    """Return how many stages before the neck each parameter of a backbone is: 1 is the last stage.

    Args:
        names: Of parameters; those outside of the backbone are left out. What comes before the
            first stage is one deeper than it, what comes after the last is with it.
    """
    numbers: dict[str, int | None] = {}
    for name in names:
        if name.removeprefix('module.').startswith(_BACKBONE):
            match = _STAGE.search(name)
            numbers[name] = int(match[1]) if match else None
    stages = sorted({number for number in numbers.values() if number is not None})
    depths: dict[str, int] = {}
    seen_stage = False
    for name, number in numbers.items():
        seen_stage |= number is not None
        if number is not None:
            depths[name] = len(stages) - stages.index(number)
        else:
            depths[name] = 1 if seen_stage else len(stages) + 1
    return depths
