"""Wiring of a feature pyramid cell as plain data: nodes, each with its level and its inputs.

Levels and ids count from 0: the cell's input maps have the ids ``0 .. L-1`` from the finest level
up, nodes continue in their order. The output of a level is its last node. A topology of your own
is such a list.
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
    """Appends nodes and remembers the ids of each level, oldest first."""

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

    A top-down node has the latest map of its level and of the level above; a bottom-up node has
    all maps of its level so far and the latest of the level below. So the finest output is a
    top-down node, and the top has two inputs. A single level has one node of its own map.
    """
    cell = _Builder(num_levels)
    if num_levels == 1:
        cell.add(0, 0)
    for level in reversed(range(num_levels - 1)):
        cell.add(level, cell.ids[level][-1], cell.ids[level + 1][-1])
    for level in range(1, num_levels):
        cell.add(level, *cell.ids[level], cell.ids[level - 1][-1])
    return cell.nodes


def fpn(num_levels: int) -> Topology:
    """Top-down only (Lin et al., CVPR 2017): each level with the output of the level above."""
    cell = _Builder(num_levels)
    cell.add(num_levels - 1, num_levels - 1)
    for level in reversed(range(num_levels - 1)):
        cell.add(level, level, cell.ids[level + 1][-1])
    return cell.nodes


def panet(num_levels: int) -> Topology:
    """Top-down, then bottom-up over its outputs (Liu et al., CVPR 2018)."""
    cell = _Builder(num_levels)
    cell.nodes = fpn(num_levels)
    cell.ids = [[cell.num_levels + num_levels - 1 - level] for level in range(num_levels)]
    cell.add(0, cell.ids[0][-1])
    for level in range(1, num_levels):
        cell.add(level, cell.ids[level][-1], cell.ids[level - 1][-1])
    return cell.nodes


def fully_connected(num_levels: int) -> Topology:
    """Every level takes every input map, resampled (the paper's figure 2 e)."""
    return [Node(level, tuple(range(num_levels))) for level in range(num_levels)]


def qufpn(num_levels: int) -> Topology:
    """Quad: a BiFPN, its mirror (bottom-up, then top-down) over the same inputs, and their sums."""
    cell = _Builder(num_levels)
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


TOPOLOGIES: dict[str, Callable[[int], Topology]] = {
    'bifpn': bifpn,
    'fpn': fpn,
    'panet': panet,
    'fully_connected': fully_connected,
    'qufpn': qufpn,
}

NodeSpec = Node | tuple[int, Sequence[int]] | dict[str, object]


def build_topology(topology: str | Sequence[NodeSpec], num_levels: int) -> Topology:
    """Node list of a name, or of nodes written as ``(level, inputs)`` or ``dict(level=, inputs=)``.

    Args:
        topology: a name of :data:`TOPOLOGIES` or a list.
        num_levels: number of input maps, and of outputs.

    Raises:
        ConfigError: unknown name, a node of another form, a level that is not there, an input that
            is not there yet, a level without a node.
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
                f'topology node {number}: there is no level {node.level}; write one of 0 (finest) '
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
        level, inputs = (spec['level'], spec['inputs']) if isinstance(spec, dict) else spec
        return Node(index(level), tuple(index(i) for i in inputs))
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f'topology node {number}: {spec!r}: write (level, [inputs])') from None


def output_ids(topology: Topology, num_levels: int) -> list[int]:
    """Id of each level's output, its last node, finest level first."""
    last = {node.level: num_levels + number for number, node in enumerate(topology)}
    return [last[level] for level in range(num_levels)]
