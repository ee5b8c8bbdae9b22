"""Topology of a feature pyramid cell as plain data: nodes, each with its level and its inputs.

Levels and ids count from 0: the input maps of the cell have the ids ``0 .. L-1``, finest first; the
nodes continue in their order. The output of a level is its last node. You can write such a list in
a config.

Source: google/automl efficientdet/tf2/fpn_configs.py for ``bifpn`` and ``qufpn``; figure 2 of the
EfficientDet paper for the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

from effdet_plugin.errors import ConfigError


@dataclass(frozen=True)
class Node:
    """One node of a cell.

    Attributes:
        level: index of its level, 0 = finest.
        inputs: ids of the maps that it fuses, in order.
    """

    level: int
    inputs: tuple[int, ...]


Topology = list[Node]


class _Builder:
    """Appends nodes, and keeps the ids of each level in order."""

    def __init__(self, num_levels: int) -> None:
        self.nodes: Topology = []
        self.num_levels = num_levels
        self.ids: list[list[int]] = [[level] for level in range(num_levels)]

    def add(self, level: int, *inputs: int) -> int:
        """Append a node and return its id."""
        new = self.num_levels + len(self.nodes)
        self.nodes.append(Node(level, inputs))
        self.ids[level].append(new)
        return new


def bifpn(num_levels: int) -> Topology:
    """Top-down from the level below the top to the finest, then bottom-up to the top.

    A top-down node fuses the last map of its level and of the level above; a bottom-up node fuses
    all maps of its level so far and the last of the level below. So the finest output is a
    top-down node, and the top level has one node, of two inputs.
    """
    cell = _Builder(num_levels)
    if num_levels == 1:  # there is no other level to fuse: one node, of its own map
        cell.add(0, 0)
    for level in reversed(range(num_levels - 1)):
        cell.add(level, cell.ids[level][-1], cell.ids[level + 1][-1])
    for level in range(1, num_levels):
        # The input map among them is the extra edge of the paper's figure 2 (d).
        cell.add(level, *cell.ids[level], cell.ids[level - 1][-1])
    return cell.nodes


def fpn(num_levels: int) -> Topology:
    """Top-down only (Lin et al., CVPR 2017): each level with the output of the level above."""
    cell = _Builder(num_levels)
    # There is no level above the top one; its node only convolves its own map.
    cell.add(num_levels - 1, num_levels - 1)
    for level in reversed(range(num_levels - 1)):
        cell.add(level, level, cell.ids[level + 1][-1])
    return cell.nodes


def panet(num_levels: int) -> Topology:
    """Top-down, then bottom-up over its outputs (Liu et al., CVPR 2018)."""
    cell = _Builder(num_levels)
    cell.nodes = fpn(num_levels)
    # From here on only FPN's outputs are fused, not the input maps.
    cell.ids = [[output] for output in output_ids(cell.nodes, num_levels)]
    cell.add(0, cell.ids[0][-1])
    for level in range(1, num_levels):
        cell.add(level, cell.ids[level][-1], cell.ids[level - 1][-1])
    return cell.nodes


def fully_connected(num_levels: int) -> Topology:
    """Every level fuses all input maps, resampled."""
    return [Node(level, tuple(range(num_levels))) for level in range(num_levels)]


def qufpn(num_levels: int) -> Topology:
    """A BiFPN, its mirror (bottom-up, then top-down) over the same inputs, and their fusion."""
    cell = _Builder(num_levels)
    # cell.ids still holds the input maps alone: the mirror does not see the BiFPN's nodes.
    cell.nodes = bifpn(num_levels)
    outputs = output_ids(cell.nodes, num_levels)
    for level in range(1, num_levels):
        cell.add(level, level, cell.ids[level - 1][-1])
    for level in reversed(range(num_levels - 1)):
        cell.add(level, *cell.ids[level], cell.ids[level + 1][-1])
    mirrored = [ids[-1] for ids in cell.ids]
    for level in reversed(range(num_levels)):
        cell.add(level, outputs[level], mirrored[level])
    return cell.nodes


_BUILDERS: list[Callable[[int], Topology]] = [bifpn, fpn, panet, fully_connected, qufpn]
TOPOLOGIES = {builder.__name__: builder for builder in _BUILDERS}

NodeSpec = Node | tuple[int, Sequence[int]] | dict[str, object]


def build_topology(topology: str | Sequence[NodeSpec], num_levels: int) -> Topology:
    """Build a topology from a name or from nodes ``(level, inputs)``, ``dict(level=, inputs=)``.

    Args:
        topology: a name of :data:`TOPOLOGIES` or a list of nodes.
        num_levels: number of input maps, and of outputs.

    Raises:
        ConfigError: unknown name; a node of another form; a level that does not exist; an input
            that is not made before the node; a level without a node.
    """
    if isinstance(topology, str):
        if topology not in TOPOLOGIES:
            raise ConfigError(
                f'topology={topology!r} is unknown; choose one of {", ".join(TOPOLOGIES)}'
            )
        return TOPOLOGIES[topology](num_levels)
    nodes = [_as_node(spec, number) for number, spec in enumerate(topology)]
    for number, node in enumerate(nodes):
        if not 0 <= node.level < num_levels:
            raise ConfigError(
                f'topology node {number}: there is no level {node.level}; levels are 0 (finest) '
                f'to {num_levels - 1}'
            )
        late = [i for i in node.inputs if not 0 <= i < num_levels + number]
        if late or not node.inputs:
            raise ConfigError(
                f'topology node {number}: level {node.level}, inputs {node.inputs}; '
                f'inputs must be among the {num_levels + number} maps made so far'
            )
    if missing := sorted(set(range(num_levels)) - {node.level for node in nodes}):
        raise ConfigError(f'topology: no node for level {missing[0]} (0 = finest)')
    return nodes


def _as_node(spec: Any, number: int) -> Node:
    if isinstance(spec, Node):
        spec = (spec.level, spec.inputs)
    try:
        # index() takes ids as whole numbers only: neither 1.0 nor 'P3'.
        level, inputs = (spec['level'], spec['inputs']) if isinstance(spec, dict) else spec
        return Node(index(level), tuple(index(i) for i in inputs))
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f'topology node {number}: {spec!r}: write (level, [inputs])') from None


def output_ids(topology: Topology, num_levels: int) -> list[int]:
    """Id of each level's output, its last node, finest level first."""
    last = {node.level: num_levels + number for number, node in enumerate(topology)}
    return [last[level] for level in range(num_levels)]
