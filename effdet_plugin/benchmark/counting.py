"""Parameters and multiply-adds, counted on the meta device: no memory, no arithmetic."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

# Parts of the network as the reference adds them up, by where they are in ours.
PARTS = {
    'backbone': 'backbone',
    'extra_levels': 'neck.extra_levels',
    'bifpn': 'neck.cells',
    'class_head': 'bbox_head.cls_tower',
    'box_head': 'bbox_head.box_tower',
}


@dataclass(frozen=True)
class Costs:
    """What a network costs.

    Attributes:
        parameters: Trainable numbers.
        with_statistics: Those and the running means and variances of the norms.
        multiply_adds: For every convolution kernel its number of elements times the output
            positions, for one image; no bias, norm, activation or pooling.
        parameters_by_part: By the keys of `PARTS`, as far as the detector has them.
        multiply_adds_by_part: The same.
    """

    parameters: int
    with_statistics: int
    multiply_adds: int
    parameters_by_part: Mapping[str, int]
    multiply_adds_by_part: Mapping[str, int]


def build_on_meta(model: Mapping[str, Any], num_classes: int | None = None) -> nn.Module:
    """Build a model without memory for its weights, and without fetching any.

    Args:
        model: Config of the detector.
        num_classes: In place of the head's.
    """
    model = copy.deepcopy(dict(model))
    if model['backbone'].get('pretrained'):
        model['backbone']['pretrained'] = False
    if num_classes is not None:
        model['bbox_head']['num_classes'] = num_classes
    init_default_scope('mmdet')
    with torch.device('meta'):
        return MODELS.build(model).eval()


def count_costs(model: nn.Module, image_size: tuple[int, int]) -> Costs:
    """Count a detector's costs for one image.

    Args:
        model: A detector, on the meta device (from `build_on_meta`) or any other.
        image_size: ``(height, width)`` of the network input in pixels.
    """
    multiply_adds = _multiply_adds(model, image_size)
    modules = dict(model.named_modules())
    parts = {name: modules[path] for name, path in PARTS.items() if path in modules}
    return Costs(
        parameters=_parameters(model),
        with_statistics=_parameters(model) + _statistics(model),
        multiply_adds=multiply_adds['Global'],
        parameters_by_part={name: _parameters(part) for name, part in parts.items()},
        multiply_adds_by_part={
            name: _of_part(multiply_adds, f'{type(model).__name__}.{path}')
            for name, path in PARTS.items()
            if name in parts
        },
    )


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _statistics(module: nn.Module) -> int:
    names = ('running_mean', 'running_var')
    return sum(b.numel() for name, b in module.named_buffers() if name.endswith(names))


def _multiply_adds(model: nn.Module, image_size: tuple[int, int]) -> dict[str, int]:
    """Return the multiply-adds of convolutions by module path, and the sum as ``Global``."""
    image = torch.zeros(1, 3, *image_size, device=next(model.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image, mode='tensor')
    convolution = torch.ops.aten.convolution
    # torch counts a multiplication and an addition as two.
    return {
        path: operations.get(convolution, 0) // 2
        for path, operations in counter.get_flop_counts().items()
    }


def _of_part(by_path: Mapping[str, int], path: str) -> int:
    """Return a module's count; a list of modules is never called itself, so its members'."""
    if path in by_path:
        return by_path[path]
    return sum(count for name, count in by_path.items() if name.rpartition('.')[0] == path)
