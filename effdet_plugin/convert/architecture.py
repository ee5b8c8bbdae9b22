"""The 15 networks as numbers, and the names and shapes of our tensors that follow from them.

The table repeats what the configs say, on purpose: a checkpoint is checked without building a
model. Tests compare it with the configs' models, tensor by tensor.

Source: google/automl ``efficientdet/hparams_config.py`` and ``efficientdet/backbone``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

# repeats, kernel, expansion, input and output channels of the stages of EfficientNet-B0
STAGES = (
    (1, 3, 1, 32, 16),
    (2, 3, 6, 16, 24),
    (2, 5, 6, 24, 40),
    (3, 3, 6, 40, 80),
    (3, 5, 6, 80, 112),
    (4, 5, 6, 112, 192),
    (1, 3, 6, 192, 320),
)
# width and depth; the Lite networks keep the stem and the depth of their first and last stage
SCALING = {
    'b0': (1.0, 1.0),
    'b1': (1.0, 1.1),
    'b2': (1.1, 1.2),
    'b3': (1.2, 1.4),
    'b4': (1.4, 1.8),
    'b5': (1.6, 2.2),
    'b6': (1.8, 2.6),
    'b7': (2.0, 3.1),
    'lite0': (1.0, 1.0),
    'lite1': (1.0, 1.1),
    'lite2': (1.1, 1.2),
    'lite3': (1.2, 1.4),
    'lite4': (1.4, 1.8),
}
PYRAMID_STAGES = (2, 4, 6)  # their outputs are P3, P4 and P5
SE_RATIO = 0.25


@dataclass(frozen=True)
class Network:
    """A row of the table; ``num_levels`` counts from P3, ``has_fusion`` says weighted fusion."""

    backbone: str
    channels: int
    num_cells: int
    num_repeats: int
    num_levels: int = 5
    has_fusion: bool = True


NETWORKS = {
    'd0': Network('b0', 64, 3, 3),
    'd1': Network('b1', 88, 4, 3),
    'd2': Network('b2', 112, 5, 3),
    'd3': Network('b3', 160, 6, 4),
    'd4': Network('b4', 224, 7, 4),
    'd5': Network('b5', 288, 7, 4),
    'd6': Network('b6', 384, 8, 5, has_fusion=False),
    'd7': Network('b6', 384, 8, 5, has_fusion=False),
    'd7x': Network('b7', 384, 8, 5, num_levels=6, has_fusion=False),
    'lite0': Network('lite0', 64, 3, 3, has_fusion=False),
    'lite1': Network('lite1', 88, 4, 3, has_fusion=False),
    'lite2': Network('lite2', 112, 5, 3, has_fusion=False),
    'lite3': Network('lite3', 160, 6, 4, has_fusion=False),
    'lite3x': Network('lite3', 200, 6, 4, has_fusion=False),
    'lite4': Network('lite4', 224, 7, 4, has_fusion=False),
}


@dataclass(frozen=True)
class Structure:
    """One checkpoint's network: a row of the table, its heads' width and the named options.

    Attributes:
        fusion: ``'scalar'``, ``'channel'`` or ``'sum'`` weights (the formula is not in them).
        topology: ``'bifpn'`` or ``'qufpn'``.
        separable: separable 3x3 convolutions in pyramid and heads.
        node_bias: bias in the pyramid's 3x3 convolutions (not with ``conv_bn_act_pattern``).
        resample_norm: BN after the channel-matching convolutions.
    """

    network: Network
    num_classes: int = 90
    num_anchors: int = 9
    fusion: str = 'scalar'
    topology: str = 'bifpn'
    separable: bool = True
    node_bias: bool = True
    resample_norm: bool = True


@dataclass(frozen=True)
class Block:
    """One MBConv block; ``number`` counts through all stages, as in TensorFlow's names."""

    number: int
    stage: int
    index: int
    kernel: int
    expansion: int
    in_channels: int
    out_channels: int


def network_name(model: str) -> str:
    """Key of :data:`NETWORKS` for a name: ``efficientdet-d0``, ``tf_efficientdet_d0``, ``d3-640``.

    Raises:
        KeyError: No such network.
    """
    short = model.lower().replace('_', '-').removeprefix('tf-').removeprefix('efficientdet-')
    for suffix in ('-640', '-advprop', '-ap'):
        short = short.removesuffix(suffix)
    if short not in NETWORKS:
        raise KeyError(model)
    return short


@cache
def blocks(backbone: str) -> tuple[Block, ...]:
    """All blocks of a backbone, in order."""
    width, depth = SCALING[backbone]
    result: list[Block] = []
    for stage, (repeats, kernel, expansion, first, out) in enumerate(STAGES):
        is_fixed = backbone.startswith('lite') and stage in (0, len(STAGES) - 1)
        channels = stem_channels(backbone) if stage == 0 else round_channels(first, width)
        for index in range(repeats if is_fixed else math.ceil(depth * repeats)):
            block = Block(
                len(result), stage, index, kernel, expansion, channels, round_channels(out, width)
            )
            channels = block.out_channels
            result.append(block)
    return tuple(result)


def stem_channels(backbone: str) -> int:
    """Channels of the first convolution."""
    return 32 if backbone.startswith('lite') else round_channels(32, SCALING[backbone][0])


def pyramid_channels(backbone: str) -> tuple[int, ...]:
    """Channels of P3, P4 and P5."""
    return tuple(
        [block.out_channels for block in blocks(backbone) if block.stage == stage][-1]
        for stage in PYRAMID_STAGES
    )


def round_channels(channels: int, width: float) -> int:
    """Scaled channels as a multiple of 8, at least 90 % of the exact value."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def node_inputs(structure: Structure) -> list[tuple[int, ...]]:
    """Ids of the maps that each node of a cell fuses, in order."""
    # Late: importing the models imports mmdet, which the readers do without.
    from effdet_plugin.models.necks.topology import build_topology

    nodes = build_topology(structure.topology, structure.network.num_levels)
    return [tuple(node.inputs) for node in nodes]


def matched_inputs(structure: Structure) -> list[int]:
    """Ids of the first cell's input maps that a convolution brings to the pyramid's channels."""
    of_backbone = pyramid_channels(structure.network.backbone)
    return [i for i, c in enumerate(of_backbone) if c != structure.network.channels]


def state_shapes(structure: Structure) -> Shapes:
    """Names and shapes of all our tensors, in the order of the model's state dict."""
    parts = (_backbone(structure.network.backbone), _neck(structure), _heads(structure))
    return {name: shape for part in parts for name, shape in part}


Named = Iterator[tuple[str, Shape]]


def _norm(name: str, channels: int) -> Named:
    for leaf in ('weight', 'bias', 'running_mean', 'running_var'):
        yield f'{name}.{leaf}', (channels,)
    yield f'{name}.num_batches_tracked', ()


def _conv(name: str, shape: Shape, bias: bool = True) -> Named:
    yield f'{name}.weight', shape
    if bias:
        yield f'{name}.bias', (shape[0],)


def _mixing_conv(name: str, structure: Structure, out: int, bias: bool = True) -> Named:
    """A 3x3 convolution of pyramid or heads, separable or not."""
    channels = structure.network.channels
    if structure.separable:
        yield f'{name}.depthwise.weight', (channels, 1, 3, 3)
        yield from _conv(f'{name}.pointwise', (out, channels, 1, 1), bias)
    else:
        yield from _conv(name, (out, channels, 3, 3), bias)


def _backbone(backbone: str) -> Named:
    stem = stem_channels(backbone)
    yield 'backbone.model.conv_stem.weight', (stem, 3, 3, 3)
    yield from _norm('backbone.model.bn1', stem)
    for block in blocks(backbone):
        yield from _block(block, has_se=not backbone.startswith('lite'))


def _block(block: Block, has_se: bool) -> Named:
    name = f'backbone.model.blocks.{block.stage}.{block.index}'
    wide = block.in_channels * block.expansion
    if block.expansion > 1:
        yield f'{name}.conv_pw.weight', (wide, block.in_channels, 1, 1)
        yield from _norm(f'{name}.bn1', wide)
    yield f'{name}.conv_dw.weight', (wide, 1, block.kernel, block.kernel)
    yield from _norm(f'{name}.bn{2 if block.expansion > 1 else 1}', wide)
    if has_se:
        reduced = max(1, int(block.in_channels * SE_RATIO))
        yield from _conv(f'{name}.se.conv_reduce', (reduced, wide, 1, 1))
        yield from _conv(f'{name}.se.conv_expand', (wide, reduced, 1, 1))
    project = 'conv_pwl' if block.expansion > 1 else 'conv_pw'
    yield f'{name}.{project}.weight', (block.out_channels, wide, 1, 1)
    yield from _norm(f'{name}.bn{3 if block.expansion > 1 else 2}', block.out_channels)


def _resample(name: str, structure: Structure, in_channels: int) -> Named:
    channels = structure.network.channels
    yield from _conv(f'{name}.conv', (channels, in_channels, 1, 1))
    if structure.resample_norm:
        yield from _norm(f'{name}.bn', channels)


def _neck(structure: Structure) -> Named:
    network = structure.network
    of_backbone = pyramid_channels(network.backbone)
    matched = matched_inputs(structure)
    if len(of_backbone) - 1 in matched:
        yield from _resample('neck.extra_levels.0', structure, of_backbone[-1])
    for cell in range(network.num_cells):
        for node, inputs in enumerate(node_inputs(structure)):
            name = f'neck.cells.{cell}.nodes.{node}'
            for position, map_id in enumerate(inputs):
                if cell == 0 and map_id in matched:
                    yield from _resample(
                        f'{name}.resamples.{position}', structure, of_backbone[map_id]
                    )
            if structure.fusion != 'sum':
                wide = (network.channels,) if structure.fusion == 'channel' else ()
                yield f'{name}.fusion.weights', (len(inputs), *wide)
            yield from _mixing_conv(
                f'{name}.conv', structure, network.channels, structure.node_bias
            )
            yield from _norm(f'{name}.bn', network.channels)


def _heads(structure: Structure) -> Named:
    network = structure.network
    for tower, width in (('cls', structure.num_classes), ('box', 4)):
        name = f'bbox_head.{tower}_tower'
        for repeat in range(network.num_repeats):
            yield from _mixing_conv(f'{name}.convs.{repeat}', structure, network.channels)
        for repeat in range(network.num_repeats):
            for level in range(network.num_levels):
                yield from _norm(f'{name}.norms.{repeat}.{level}', network.channels)
        yield from _mixing_conv(f'{name}.predict', structure, structure.num_anchors * width)
