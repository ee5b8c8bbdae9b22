"""Which network a checkpoint holds, told from the names and shapes of its tensors alone."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from effdet_plugin.convert.key_map import LAYOUTS, KeyMap, Layer, Param
from effdet_plugin.convert.networks import (
    MODELS,
    Shape,
    Shapes,
    Structure,
    network,
    network_name,
    pyramid_nodes,
)
from effdet_plugin.errors import CheckpointError

_NODE_CONV = 'neck.cells.{cell}.nodes.{node}.conv'
_PATTERNS = {'root': r'[^/]+', 'suffix': r'(?:_\d+)?'}  # placeholders that are not numbers


@dataclass(frozen=True)
class _Located:
    """A tensor of the source, at its line of the key map."""

    layer: Layer
    param: Param
    values: Mapping[str, str]  # of the placeholders
    shape: Shape


class _Tensors:
    """The tensors of a source, looked up by the templates of our layers."""

    def __init__(self, key_map: KeyMap, shapes: Shapes) -> None:
        self.key_map = key_map
        patterns = [(_pattern(key_map, layer), layer) for layer in key_map.layers]
        self.located: list[_Located] = []
        for name, shape in shapes.items():
            for pattern, layer in patterns:
                if match := pattern.fullmatch(name):
                    params = key_map.params[layer.kind]
                    param = next(p for p in params if p.source == match['param'])
                    self.located.append(_Located(layer, param, match.groupdict(), shape))
                    break

    def count(self, *placeholders: str) -> int:
        """Return how many different values a placeholder takes."""
        values = {one.values.get(name) for one in self.located for name in placeholders}
        return len(values - {None})

    def find(self, ours: str, param: str) -> _Located | None:
        """Return the first tensor of a layer; ``param`` is the end of its name in ours."""
        return next(
            (t for t in self.located if t.layer.ours == ours and t.param.ours.endswith(param)), None
        )

    def get(self, ours: str, param: str) -> _Located:
        """Return the first tensor of a layer that every EfficientDet has.

        Raises:
            CheckpointError: It is not there.
        """
        if found := self.find(ours, param):
            return found
        source = next(layer.source for layer in self.key_map.layers if layer.ours == ours)
        raise CheckpointError(
            f'no tensor {source} ({param[1:]}): an incomplete EfficientDet of {self.key_map.name}'
        )


def detect(key_map: KeyMap, shapes: Shapes, model: str | None = None) -> Structure:
    """Return the structure of the network of canonically named tensors.

    Args:
        key_map: how they are named.
        shapes: canonical names and shapes.
        model: name that the caller expects, checked; it also decides between equal networks.

    Raises:
        CheckpointError: The tensors are of no known network, or of another one than ``model``.
    """
    tensors = _Tensors(key_map, shapes)
    channels, cells, repeats, levels, has_se = found = (
        _out_channels(tensors.get('neck.extra_levels.{extra}.conv', '.weight')),
        tensors.count('cell'),
        tensors.count('repeat'),
        tensors.count('level', 'pyramid_level'),
        any('.se.' in tensor.layer.ours for tensor in tensors.located),
    )
    names = [name for name in MODELS if network(name).identity == found]
    if not names:
        raise CheckpointError(
            f'no known EfficientDet, or an incomplete one: {channels} channels, {cells} cells, '
            f'{repeats} head repeats, {levels} levels, {"" if has_se else "no "}'
            'squeeze-and-excitation'
        )
    expected = names[0] if model is None else network_name(model)
    if expected not in names:
        raise CheckpointError(
            f'these are weights of {names[0]} ({network(names[0])}), not of {expected} '
            f'({network(expected)}): name --model {names[0]}'
        )
    return _structure(tensors, expected)


def _pattern(key_map: KeyMap, layer: Layer) -> re.Pattern[str]:
    """Return the pattern of all source names of a layer."""
    parts = re.split(r'\{(\w+)\}', layer.source)  # text and placeholders in turns
    parts[0::2] = map(re.escape, parts[0::2])
    parts[1::2] = [f'(?P<{name}>{_PATTERNS.get(name, "[0-9]+")})' for name in parts[1::2]]
    ends = '|'.join(re.escape(param.source) for param in key_map.params[layer.kind])
    return re.compile(f'{"".join(parts)}(?P<param>{ends})')


def _out_channels(conv: _Located) -> int:
    value = torch.empty(conv.shape, device='meta')
    if value.dim() != 4:
        raise CheckpointError(f'{conv.layer.source} has the shape {conv.shape}, not of a kernel')
    for layout in conv.param.layouts:
        value = LAYOUTS[layout].forward(value)
    return value.shape[0]


def _structure(tensors: _Tensors, model: str) -> Structure:
    class_outputs, box_outputs = (
        math.prod(tensors.get(f'bbox_head.{tower}_tower.predict', 'bias').shape)
        for tower in ('cls', 'box')
    )
    num_anchors, rest = divmod(box_outputs, 4)
    num_classes, remainder = divmod(class_outputs, max(num_anchors, 1))
    if rest or remainder or not num_anchors or not num_classes:
        raise CheckpointError(
            f'{class_outputs} class and {box_outputs} box outputs do not belong to the same anchors'
        )
    # Where a bias may be left out, its absence tells nothing of the network.
    may_lack_bias = any(
        re.search(pattern, 'neck.cells.0.nodes.0.conv.bias')
        for pattern, _ in tensors.key_map.defaults
    )
    structure = Structure(
        model=model,
        num_classes=num_classes,
        num_anchors=num_anchors,
        fusion=_fusion(tensors, model),
        separable=tensors.find('bbox_head.box_tower.predict', '.depthwise.weight') is not None,
        node_bias=may_lack_bias or tensors.find(_NODE_CONV, 'bias') is not None,
        resample_norm=tensors.find('neck.extra_levels.{extra}.bn', '.weight') is not None,
    )
    quad = replace(structure, topology='qufpn')
    return quad if tensors.count('node') == len(pyramid_nodes(quad)) else structure


def _fusion(tensors: _Tensors, model: str) -> str:
    if tensors.key_map.idle_fusion and network(model).fusion == 'sum':
        return 'sum'
    weights = tensors.find('neck.cells.{cell}.nodes.{node}.fusion.weights', '')
    if weights is None:
        return 'sum'
    rank = len(weights.shape) + weights.layer.is_stacked  # (inputs,) or (inputs, channels)
    return 'channel' if rank > 1 else 'scalar'
