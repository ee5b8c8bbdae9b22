"""One engine for all key maps: a table says which tensor of a source is which of ours.

A table is data: templates of names over *axes* (blocks, nodes, levels, ...), a *kind* of layer, and
per kind its leaves with their layouts. :func:`expand` turns a table into a list of pairs for one
network; :func:`apply` and :func:`invert` walk that list in either direction and account for every
tensor.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from effdet_plugin.convert.architecture import Shape, Shapes, Structure, state_shapes
from effdet_plugin.convert.axes import Values, network_axes
from effdet_plugin.errors import CheckpointError


@dataclass(frozen=True)
class Entry:
    """A line of a table: one kind of layer, everywhere on an axis.

    Attributes:
        source: template of the layer's name in the source.
        target: template of its name in our state dict.
        kind: key of the table's leaves; ``'mixing'`` and ``'box_mixing'`` become ``'separable'`` or
            ``'plain'`` and their box forms, as the network has it.
        axis: name of the axis whose values fill the templates.
        per_input: the source is one tensor per input of the node, numbered by ``{suffix}``.
    """

    source: str
    target: str
    kind: str
    axis: str = 'once'
    per_input: bool = False


@dataclass(frozen=True)
class Leaf:
    """One tensor of a layer: suffixes in source and target, and its layouts, first one first."""

    source: str
    target: str
    layouts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """One tensor of ours and where it comes from; several sources are stacked."""

    sources: tuple[str, ...]
    target: str
    layouts: tuple[str, ...]
    is_stacked: bool


@dataclass(frozen=True)
class Dialect:
    """A family of checkpoints that name their tensors alike.

    Attributes:
        name: for messages.
        table: the key map.
        leaves: tensors of each kind of layer.
        aliases: (pattern, replacement), applied in order to every name first.
        left_out: (pattern, reason) of names that have no place in ours.
        fills: (pattern of our names, reason): zeros where the source has none of them at all.
        average: suffix of a moving average's name.
        probes: patterns from which :mod:`~effdet_plugin.convert.detect` reads the structure.
        kernel_axes: (input, output) axis of a convolution's kernel.
        fusion_rank: dimensions of a scalar fusion weight.
        aspects: aspect ratios of the anchors that these weights expect.
    """

    name: str
    table: tuple[Entry, ...]
    leaves: Mapping[str, tuple[Leaf, ...]]
    probes: Mapping[str, str]
    kernel_axes: tuple[int, int]
    fusion_rank: int
    aspects: str
    aliases: tuple[tuple[str, str], ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    fills: tuple[tuple[str, str], ...] = ()
    average: str = ''


@dataclass
class Account:
    """What became of every tensor: source names by target, reasons by name."""

    mapped: dict[str, tuple[str, ...]] = field(default_factory=dict)
    filled: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """A rearrangement of a tensor and its inverse."""

    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]


def _swap_box(x: Tensor) -> Tensor:
    """``(ty, tx, th, tw)`` <-> ``(tx, ty, tw, th)`` in each four outputs; its own inverse."""
    return x.unflatten(0, (-1, 4))[:, [1, 0, 3, 2]].flatten(0, 1)


LAYOUTS = {
    'kernel': Layout(lambda x: x.permute(3, 2, 0, 1), lambda x: x.permute(2, 3, 1, 0)),
    'depthwise': Layout(lambda x: x.permute(2, 3, 0, 1), lambda x: x.permute(2, 3, 0, 1)),
    'boxes': Layout(_swap_box, _swap_box),
}


def expand(dialect: Dialect, structure: Structure) -> list[Pair]:
    """All pairs of a network, in the order of our state dict."""
    axes = network_axes(structure)
    shapes = state_shapes(structure)
    pairs = {
        pair.target: pair
        for entry in dialect.table
        for values in axes[entry.axis]
        for pair in _entry_pairs(dialect, entry, values, structure.separable)
    }
    return [pairs[target] for target in shapes if target in pairs]


def apply(
    dialect: Dialect, structure: Structure, names: Shapes, read: Callable[[str], Tensor]
) -> tuple[dict[str, Tensor], Account]:
    """Our state dict from a source.

    Args:
        dialect: how the source names its tensors.
        structure: its network.
        names: canonical names and shapes of the source's tensors, none left out.
        read: gives a tensor by its canonical name.

    Raises:
        CheckpointError: A tensor is missing, has another shape, or has no place.
    """
    pairs = {pair.target: pair for pair in expand(dialect, structure)}
    shapes = state_shapes(structure)
    absent = {t for t in shapes if t not in pairs or not set(pairs[t].sources) <= names.keys()}
    account = Account(filled=_fills(dialect, shapes, absent))
    account.mapped = {t: pairs[t].sources for t in shapes if t not in absent}
    known = {name for pair in pairs.values() for name in pair.sources}
    wanted = [t for t in shapes if t in absent and t not in account.filled]
    missing = [name for t in wanted for name in _sources(pairs, t) if name not in names]
    _check_complete(missing, [name for name in names if name not in known])
    state = {}
    for target, shape in shapes.items():
        if target in account.filled:
            dtype = torch.int64 if target.endswith('num_batches_tracked') else torch.float32
            state[target] = torch.zeros(shape, dtype=dtype)
            continue
        state[target] = _checked(pairs[target], names, shape, read)
    return state, account


def invert(
    dialect: Dialect, structure: Structure, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """A source's tensors from our state dict; what the source does not have is left out."""
    return {
        name: value
        for pair in expand(dialect, structure)
        for name, value in zip(pair.sources, _backward(pair, state[pair.target]), strict=True)
    }


def _entry_pairs(dialect: Dialect, entry: Entry, values: Values, is_separable: bool) -> list[Pair]:
    kind = entry.kind.replace('mixing', 'separable' if is_separable else 'plain')
    # TensorFlow counts equal names: WSM, WSM_1, WSM_2.
    count = int(values['num_inputs']) if entry.per_input else 1
    suffixes = [f'_{number}' if number else '' for number in range(count)]
    sources = [entry.source.format(**values, suffix=suffix) for suffix in suffixes]
    target = entry.target.format(**values)
    return [
        Pair(
            tuple(source + leaf.source for source in sources),
            target + leaf.target,
            leaf.layouts,
            entry.per_input,
        )
        for leaf in dialect.leaves[kind]
    ]


def _fills(dialect: Dialect, shapes: Shapes, absent: set[str]) -> dict[str, str]:
    filled = {}
    for pattern, reason in dialect.fills:
        group = [target for target in shapes if re.search(pattern, target)]
        if absent.issuperset(group):
            filled.update(dict.fromkeys(group, reason))
    return filled


def _checked(pair: Pair, names: Shapes, shape: Shape, read: Callable[[str], Tensor]) -> Tensor:
    values = [read(name) for name in pair.sources]
    try:
        value = _forward(pair, values)
        is_right = value.shape == shape
    except RuntimeError:  # another number of dimensions than the layout has
        is_right = False
    if not is_right:
        found = ' and '.join(str(names[name]) for name in pair.sources)
        raise CheckpointError(
            f'{pair.sources[0]} has the shape {found}, which does not make our {pair.target} '
            f'of {shape}'
        )
    return value


def _forward(pair: Pair, tensors: list[Tensor]) -> Tensor:
    value = torch.stack(tensors) if pair.is_stacked else tensors[0]
    for layout in pair.layouts:
        value = LAYOUTS[layout].forward(value)
    return value.contiguous()


def _backward(pair: Pair, value: Tensor) -> list[Tensor]:
    for layout in reversed(pair.layouts):
        value = LAYOUTS[layout].inverse(value)
    return [part.contiguous() for part in (value.unbind() if pair.is_stacked else [value])]


def _sources(pairs: Mapping[str, Pair], target: str) -> tuple[str, ...]:
    return pairs[target].sources if target in pairs else (target,)


def _check_complete(missing: list[str], unknown: list[str]) -> None:
    lists = {'missing': missing, 'without a place': unknown}
    parts = [f'{len(names)} {what}: {_first(names)}' for what, names in lists.items() if names]
    if parts:
        raise CheckpointError('its tensors do not make this network: ' + '; '.join(parts))


def _first(names: list[str], count: int = 4) -> str:
    return ', '.join(names[:count]) + (', ...' if len(names) > count else '')
