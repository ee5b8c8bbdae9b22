"""Key maps: which tensor of a source is which of ours.

A key map is data: templates of a layer's name in the source and in our state dict, a kind per
layer, and per kind its parameters with their layouts. :func:`expand` translates the names of our
model's state dict, one by one; :func:`apply` and :func:`invert` read and write by those pairs.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from effdet_plugin.convert.networks import Shape, Shapes, Structure, pyramid_nodes
from effdet_plugin.errors import CheckpointError

_INDEX = re.compile(r'(?<=\.)\d+(?=\.)')  # a number in one of our names: blocks.1.0.conv_pw
_PLACEHOLDER = re.compile(r'\{(\w+)\}')
_BLOCKS, _CELLS = 'backbone.model.blocks.', 'neck.cells.'
_ANCHORS_PER_KIND = 3  # scales, and aspect ratios
# mmdetection's EfficientNet makes one layer of the stages of a stride; its stem is layer 0.
_LAYERS = (1, 2, 3, 4, 4, 5, 5)


@dataclass(frozen=True)
class Layer:
    """A line of a key map.

    Attributes:
        source: template of the layer's name in the source. With ``{suffix}`` it is one tensor per
            input of a node, counted as TensorFlow counts equal names: ``WSM``, ``WSM_1``.
        ours: template of its name in our state dict.
        kind: key of the map's ``params``.
        when: for a layer of a backbone block: whether the line is of the blocks that expand
            their channels, or of those that do not; of a BiFPN's node: whether it is on the way
            to the finer levels, or back; None for both.
    """

    source: str
    ours: str
    kind: str
    when: bool | None = None

    @property
    def is_stacked(self) -> bool:
        """Whether several tensors of the source make one of ours."""
        return '{suffix}' in self.source


@dataclass(frozen=True)
class Param:
    """One tensor of a layer: suffixes in source and ours, and its layouts, first one first."""

    source: str
    ours: str
    layouts: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeyMap:
    """The key map of one family of checkpoints.

    Attributes:
        name: for messages.
        layers: the lines.
        params: tensors of each kind of layer.
        aspect_ratios: name of the anchors' aspect ratios that these weights were trained with.
        aliases: (pattern, replacement), applied in order to every source name first.
        left_out: (pattern, reason) of source names that our model needs no tensor for.
        defaults: (pattern of our names, reason): zeros where the source has none of them at all.
        average: suffix of a moving average's name.
        pool_type: of the pyramid that these weights were trained with.
        idle_fusion: pattern of the fusion weights, which stand in the files of networks that sum,
            too; empty: they tell that a network does not.
    """

    name: str
    layers: tuple[Layer, ...]
    params: Mapping[str, tuple[Param, ...]]
    aspect_ratios: str
    aliases: tuple[tuple[str, str], ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    defaults: tuple[tuple[str, str], ...] = ()
    average: str = ''
    pool_type: str = 'max'
    idle_fusion: str = ''

    def canonical(self, name: str) -> str:
        """Return a source name as the templates have it."""
        for pattern, replacement in self.aliases:
            name = re.sub(pattern, replacement, name)
        return name


@dataclass(frozen=True)
class Pair:
    """One tensor of ours and where it comes from; several sources are stacked."""

    sources: tuple[str, ...]
    ours: str
    layouts: tuple[str, ...]
    is_stacked: bool


class Applied(NamedTuple):
    """Result of :func:`apply`.

    Attributes:
        state: our state dict.
        mapped: our name -> names in the source.
        filled: our name -> why it was filled with zeros.
    """

    state: dict[str, Tensor]
    mapped: dict[str, tuple[str, ...]]
    filled: dict[str, str]


class Layout(NamedTuple):
    """A rearrangement of a tensor, from the source's to ours and back."""

    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]


def _swap_box(x: Tensor) -> Tensor:
    """``(ty, tx, th, tw)`` <-> ``(tx, ty, tw, th)`` in each four outputs; its own inverse."""
    return x.unflatten(0, (-1, 4))[:, [1, 0, 3, 2]].flatten(0, 1)


def _swap_anchors(x: Tensor) -> Tensor:
    """Outputs by aspect ratio and scale <-> by scale and aspect ratio; its own inverse."""
    side = _ANCHORS_PER_KIND
    if x.shape[0] % side**2:
        raise CheckpointError(
            f'{x.shape[0]} outputs are not those of {side} scales and {side} aspect ratios, '
            'whose order is known'
        )
    return x.unflatten(0, (side, side, -1)).transpose(0, 1).flatten(0, 2)


LAYOUTS = {
    'kernel': Layout(lambda x: x.permute(3, 2, 0, 1), lambda x: x.permute(2, 3, 1, 0)),
    'depthwise': Layout(lambda x: x.permute(2, 3, 0, 1), lambda x: x.permute(2, 3, 0, 1)),
    'boxes': Layout(_swap_box, _swap_box),
    'ratio_major': Layout(_swap_anchors, _swap_anchors),
}


def expand(key_map: KeyMap, structure: Structure, shapes: Mapping[str, Shape]) -> list[Pair]:
    """Return the pairs of our tensors, in their order; what the map does not have is left out.

    Args:
        key_map: how the source names its tensors.
        structure: the network.
        shapes: names and shapes of our state dict, or of a part of it.
    """
    lines = {
        (_PLACEHOLDER.sub('#', layer.ours) + param.ours, layer.when): (layer, param)
        for layer in key_map.layers
        for param in key_map.params[layer.kind]
    }
    blocks, nodes = _blocks(shapes), pyramid_nodes(structure)
    places = _places(blocks)
    pairs = []
    for name, shape in shapes.items():
        indices = _indices(name)
        block, when = blocks[indices] if name.startswith(_BLOCKS) else (0, None)
        if name.startswith(_CELLS):
            when = indices[1] < structure.network.num_levels - 1
        pattern = _INDEX.sub('#', name)
        line = lines.get((pattern, when)) or lines.get((pattern, None))
        if line is None:
            continue
        layer, param = line
        values = dict(zip(_PLACEHOLDER.findall(layer.ours), indices, strict=True))
        node = nodes[values['node']] if 'node' in values else None
        layer_number, place = places.get(indices, (0, 0)) if 'stage' in values else (0, 0)
        # Numbers that follow from ours; a template takes what it needs.
        more = {
            'root': f'efficientnet-{structure.network.backbone}',
            'block': block,  # counted through all stages
            'pyramid_level': 3 + values.get('level', 0),
            'maps': structure.network.num_levels + values.get('node', 0),  # in the cell so far
            'map': node.inputs[values['position']] if node and 'position' in values else 0,
            'node_level': 3 + node.level if node else 0,
            'layer': layer_number,
            'place': place,
        }
        suffixes = [f'_{i}' if i else '' for i in range(shape[0] if layer.is_stacked else 1)]
        sources = (layer.source.format(**values, **more, suffix=suffix) for suffix in suffixes)
        named = tuple(source + param.source for source in sources)
        pairs.append(Pair(named, name, param.layouts, layer.is_stacked))
    return pairs


def apply(
    key_map: KeyMap,
    structure: Structure,
    shapes: Shapes,
    names: Shapes,
    read: Callable[[str], Tensor],
) -> Applied:
    """Make our state dict from a source.

    Args:
        key_map: how the source names its tensors.
        structure: its network.
        shapes: names and shapes of our state dict, or of a part of it.
        names: canonical names and shapes of the source's tensors, none left out.
        read: gives a tensor by its canonical name.

    Raises:
        CheckpointError: A tensor is missing, has another shape, or has no place in our model.
    """
    pairs = {pair.ours: pair for pair in expand(key_map, structure, shapes)}
    # A name that the map does not have stands for itself in the list of missing ones.
    wanted = {ours: pairs[ours].sources if ours in pairs else (ours,) for ours in shapes}
    absent = {ours for ours, sources in wanted.items() if not names.keys() >= set(sources)}
    filled = _filled(key_map, shapes, absent)
    _check_complete(
        [n for ours in shapes if ours in absent - filled.keys() for n in wanted[ours]],
        names,
        {name for pair in pairs.values() for name in pair.sources},
    )
    state = {
        ours: (
            torch.zeros(shape) if ours in filled else _converted(pairs[ours], names, shape, read)
        ).to(torch.int64 if ours.endswith('num_batches_tracked') else torch.float32)
        for ours, shape in shapes.items()
    }
    mapped = {ours: wanted[ours] for ours in shapes if ours not in filled}
    return Applied(state, mapped, filled)


def invert(key_map: KeyMap, structure: Structure, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make a source's tensors from our state dict; what the source does not have is left out."""
    result: dict[str, Tensor] = {}
    for pair in expand(key_map, structure, {n: tuple(v.shape) for n, v in state.items()}):
        value = state[pair.ours]
        for layout in reversed(pair.layouts):
            value = LAYOUTS[layout].inverse(value)
        parts = value.unbind() if pair.is_stacked else [value]
        result.update(zip(pair.sources, (part.contiguous() for part in parts), strict=True))
    return result


def _indices(name: str) -> tuple[int, ...]:
    return tuple(map(int, _INDEX.findall(name)))


def _blocks(shapes: Mapping[str, Shape]) -> dict[tuple[int, ...], tuple[int, bool]]:
    """(stage, index) of every backbone block -> its number, and whether it expands channels."""
    found = sorted({_indices(name) for name in shapes if name.startswith(_BLOCKS)})
    return {
        at: (number, f'{_BLOCKS}{at[0]}.{at[1]}.conv_pwl.weight' in shapes)
        for number, at in enumerate(found)
    }


def _places(blocks: Mapping[tuple[int, ...], object]) -> dict[tuple[int, ...], tuple[int, int]]:
    """(stage, index) of every backbone block -> its layer of mmdetection, and its place there."""
    counts = Counter(_LAYERS[stage] for stage, _ in blocks)
    numbers = {layer: iter(range(count)) for layer, count in counts.items()}
    return {at: (_LAYERS[at[0]], next(numbers[_LAYERS[at[0]]])) for at in sorted(blocks)}


def _filled(key_map: KeyMap, shapes: Shapes, absent: set[str]) -> dict[str, str]:
    filled = {}
    for pattern, reason in key_map.defaults:
        group = [ours for ours in shapes if re.search(pattern, ours)]
        if absent.issuperset(group):
            filled.update(dict.fromkeys(group, reason))
    return filled


def _check_complete(wanted: list[str], names: Shapes, known: set[str]) -> None:
    """Raise a CheckpointError with the names that are missing and those without a place."""
    lists = {
        'missing': [name for name in wanted if name not in names],
        'without a place': [name for name in names if name not in known],
    }
    parts = [
        f'{len(found)} {what}: {", ".join(found[:4])}' + (', ...' if len(found) > 4 else '')
        for what, found in lists.items()
        if found
    ]
    if parts:
        raise CheckpointError('its tensors do not make this network: ' + '; '.join(parts))


def _converted(pair: Pair, names: Shapes, shape: Shape, read: Callable[[str], Tensor]) -> Tensor:
    tensors = [read(name) for name in pair.sources]
    try:
        value = torch.stack(tensors) if pair.is_stacked else tensors[0]
        for layout in pair.layouts:
            value = LAYOUTS[layout].forward(value)
        is_right = value.shape == shape
    except RuntimeError:  # another number of dimensions than the layout has
        is_right = False
    if not is_right:
        found = ' and '.join(str(names[name]) for name in pair.sources)
        raise CheckpointError(
            f'{pair.sources[0]} has the shape {found}, which does not make our {pair.ours} '
            f'of {shape}'
        )
    return value.contiguous()
