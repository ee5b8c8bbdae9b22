"""What network a checkpoint holds, read from the names and shapes of its tensors alone."""

import math
import re
from dataclasses import dataclass, replace

from effdet_plugin.convert.architecture import (
    NETWORKS,
    SCALING,
    Network,
    Shape,
    Shapes,
    Structure,
    blocks,
    network_name,
    node_inputs,
    pyramid_channels,
    stem_channels,
)
from effdet_plugin.convert.rules import Dialect
from effdet_plugin.errors import CheckpointError

# Models whose networks are equal, so that tensors cannot tell them apart; the first one is taken.
TWINS = ('d6', 'd7')


@dataclass(frozen=True)
class Probe:
    """Names and shapes of one source, looked up by the patterns of its dialect."""

    dialect: Dialect
    shapes: Shapes

    def count(self, key: str) -> int:
        """How many different values the first group of a pattern takes."""
        found = (re.search(self.dialect.probes[key], name) for name in self.shapes)
        return len({match.group(1) for match in found if match})

    def find(self, key: str) -> Shape | None:
        """Shape of the first tensor that fits a pattern."""
        pattern = self.dialect.probes[key]
        return next((s for name, s in self.shapes.items() if re.search(pattern, name)), None)

    def has(self, key: str) -> bool:
        """Whether any name fits a pattern."""
        return self.find(key) is not None

    def kernel(self, key: str) -> tuple[int, int]:
        """Input and output channels of a convolution.

        Raises:
            CheckpointError: It is not there or no kernel.
        """
        shape = self.find(key)
        if shape is None or len(shape) != 4:
            raise self.not_whole(key)
        return shape[self.dialect.kernel_axes[0]], shape[self.dialect.kernel_axes[1]]

    def size(self, key: str) -> int:
        """Number of elements of a tensor.

        Raises:
            CheckpointError: It is not there.
        """
        shape = self.find(key)
        if shape is None:
            raise self.not_whole(key)
        return math.prod(shape)

    def not_whole(self, key: str) -> CheckpointError:
        """The error for a tensor that every EfficientDet has."""
        return CheckpointError(
            f'no tensor like {self.dialect.probes[key]}: not a whole EfficientDet of '
            f'{self.dialect.name}'
        )


def detect(dialect: Dialect, shapes: Shapes, model: str | None = None) -> tuple[str, Structure]:
    """Name and structure of the network of canonically named tensors.

    Args:
        dialect: how they are named.
        shapes: canonical names and shapes.
        model: name that the caller expects, checked; it also decides between equal networks.

    Raises:
        CheckpointError: The tensors are of no known network, or of another one than ``model``.
    """
    probe = Probe(dialect, shapes)
    network, backbones = _network(probe)
    names = [name for name, row in NETWORKS.items() if _identity(row) == _identity(network)]
    names = [name for name in names if NETWORKS[name].backbone in backbones]
    if not names:
        raise CheckpointError(f'no known EfficientDet (or not a whole one): {describe(network)}')
    if model is not None and (expected := _known(model)) not in names:
        raise CheckpointError(
            f'these are weights of {names[0]} ({describe(network)}), not of {expected} '
            f'({describe(NETWORKS[expected])}): name --model {names[0]}'
        )
    name = _known(model) if model is not None else names[0]
    return name, _structure(probe, NETWORKS[name])


def _known(model: str) -> str:
    try:
        return network_name(model)
    except KeyError as error:
        raise CheckpointError(
            f'--model {model}: not a known network; choose one of {", ".join(NETWORKS)}'
        ) from error


def _identity(network: Network) -> tuple[int, ...]:
    return network.channels, network.num_cells, network.num_repeats, network.num_levels


def _backbone_identity(name: str) -> tuple[int, int, int, bool]:
    has_se = not name.startswith('lite')
    return stem_channels(name), len(blocks(name)), pyramid_channels(name)[-1], has_se


def describe(network: Network) -> str:
    """A network's numbers in words."""
    return (
        f'{network.backbone or "unknown"} backbone, {network.channels} channels, '
        f'{network.num_cells} cells, {network.num_repeats} head repeats, '
        f'{network.num_levels} levels'
    )


def _network(probe: Probe) -> tuple[Network, list[str]]:
    """The numbers of a network and the backbones that fit (none or one)."""
    top, channels = probe.kernel('match')
    stem, num_blocks, has_se = probe.kernel('stem')[1], probe.count('block'), probe.has('se')
    found = (stem, num_blocks, top, has_se)
    backbones = [name for name in SCALING if _backbone_identity(name) == found]
    network = Network(
        backbone=backbones[0] if backbones else '',
        channels=channels,
        num_cells=probe.count('cell'),
        num_repeats=probe.count('repeat'),
        num_levels=probe.count('level'),
    )
    return network, backbones


def _structure(probe: Probe, network: Network) -> Structure:
    num_anchors, rest = divmod(probe.size('box_bias'), 4)
    num_classes, remainder = divmod(probe.size('class_bias'), max(num_anchors, 1))
    if rest or remainder or not num_anchors or not num_classes:
        raise CheckpointError(
            f'{probe.size("class_bias")} class and {probe.size("box_bias")} box outputs do not '
            'belong to the same anchors'
        )
    structure = Structure(
        network=network,
        num_classes=num_classes,
        num_anchors=num_anchors,
        fusion=_fusion(probe),
        separable=probe.has('depthwise'),
        node_bias=probe.has('node_bias'),
        resample_norm=probe.has('match_norm'),
    )
    num_nodes = probe.count('node')
    quad = replace(structure, topology='qufpn')
    return quad if num_nodes == len(node_inputs(quad)) else structure


def _fusion(probe: Probe) -> str:
    shape = probe.find('fusion')
    if shape is None:
        return 'sum'
    return 'channel' if len(shape) > probe.dialect.fusion_rank else 'scalar'
