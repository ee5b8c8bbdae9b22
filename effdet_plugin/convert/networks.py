"""The networks that are converted: what our configs say of them, and the tensors of their models.

Names and shapes of a network's tensors are those of the model that its config builds, on the meta
device: no memory, and nothing to keep equal by hand.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mmengine import Config

import effdet_plugin
from effdet_plugin.config.embedded import EMBEDDED, embed
from effdet_plugin.errors import CheckpointError
from effdet_plugin.models.necks.topology import Node, build_topology

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

MODELS = (
    *(f'd{x}' for x in (0, 1, 2, 3, 4, 5, 6, 7, '7x')),
    *(f'lite{x}' for x in (0, 1, 2, 3, '3x', 4)),
)
# A config's fusion for the weights that are found; tensors do not tell softmax from the fast form.
FUSIONS = {'scalar': 'fast_attn', 'channel': 'channel_fast_attn', 'sum': 'sum'}
# (width, height) factors of the anchors in older ports: 1.4 and 0.7 for the square root of 2.
OLD_ASPECT_RATIOS = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))


@dataclass(frozen=True)
class Network:
    """What a config says of a network; ``num_levels`` counts from P3."""

    backbone: str
    channels: int
    num_cells: int
    num_repeats: int
    num_levels: int
    fusion: str

    @property
    def identity(self) -> tuple[int, int, int, int, bool]:
        """What tells networks apart; the last is squeeze-and-excitation, which Lite lacks."""
        has_se = 'lite' not in self.backbone
        return self.channels, self.num_cells, self.num_repeats, self.num_levels, has_se

    def __str__(self) -> str:
        return (
            f'{self.backbone} backbone, {self.channels} channels, {self.num_cells} cells, '
            f'{self.num_repeats} head repeats, {self.num_levels} levels'
        )


@dataclass(frozen=True)
class Structure:
    """The network of one checkpoint: a model, the width of its heads, and its options.

    Attributes:
        model: one of :data:`MODELS`.
        num_classes: outputs per anchor.
        num_anchors: anchors per cell.
        fusion: key of :data:`FUSIONS`.
        topology: ``'bifpn'`` or ``'qufpn'``.
        separable: separable 3x3 convolutions in pyramid and heads.
        node_bias: bias in the pyramid's 3x3 convolutions (not with ``conv_bn_act_pattern``).
        resample_norm: BN after the channel-matching convolutions.
    """

    model: str
    num_classes: int = 90
    num_anchors: int = 9
    fusion: str = 'scalar'
    topology: str = 'bifpn'
    separable: bool = True
    node_bias: bool = True
    resample_norm: bool = True

    @property
    def network(self) -> Network:
        """The model's numbers."""
        return network(self.model)


def config_path(name: str) -> Path:
    """Return the path of one of our configs (``d0_coco``), in a checkout or in a wheel."""
    package = Path(effdet_plugin.__file__).parent
    folder = next((f for f in (package, package.parent) if (f / 'configs').is_dir()), package)
    return folder / 'configs' / 'efficientdet' / f'{name}.py'


def network_name(model: str) -> str:
    """Return the key in :data:`MODELS` of ``efficientdet-d0``, ``tf_efficientdet_d0``, ``d3-640``.

    Raises:
        CheckpointError: No such network.
    """
    short = model.lower().replace('_', '-').removeprefix('tf-').removeprefix('efficientdet-')
    for suffix in ('-640', '-advprop', '-ap'):
        short = short.removesuffix(suffix)
    if short not in MODELS:
        raise CheckpointError(
            f'--model {model}: not a known network; choose one of {", ".join(MODELS)}'
        )
    return short


@cache
def network(model: str) -> Network:
    """Return the numbers of one of :data:`MODELS`."""
    cfg = Config.fromfile(config_path(f'{model}_coco')).model
    return Network(
        backbone=cfg.backbone.model_name.removeprefix('tf_efficientnet_'),
        channels=cfg.neck.out_channels,
        num_cells=cfg.neck.num_cells,
        num_repeats=cfg.bbox_head.stacked_convs,
        num_levels=cfg.neck.num_outs,
        fusion=next(key for key, name in FUSIONS.items() if name == cfg.neck.fusion),
    )


def equal_networks(model: str) -> list[str]:
    """Return all models with the network of this one, which tensors cannot tell apart (d6, d7)."""
    return [name for name in MODELS if network(name).identity == network(model).identity]


@cache
def state_shapes(structure: Structure) -> Shapes:
    """Return names and shapes of all our tensors, in the order of the model's state dict."""
    # Late: counting takes torch's flop counter, which readers of tensors do without.
    from effdet_plugin.costs import build_on_meta

    cfg = Config.fromfile(config_path(f'{structure.model}_coco')).model
    cfg.neck.update(
        fusion=FUSIONS[structure.fusion],
        topology=structure.topology,
        separable=structure.separable,
        conv_bn_act_pattern=not structure.node_bias,
        apply_bn_for_resampling=structure.resample_norm,
    )
    cfg.bbox_head.separable = structure.separable
    # Only the number of anchors counts here: mmdet's generator makes any number of them.
    cfg.bbox_head.anchor_generator = dict(
        type='AnchorGenerator',
        scales=list(range(1, structure.num_anchors + 1)),
        ratios=[1.0],
        strides=[8 << level for level in range(structure.network.num_levels)],
    )
    built = build_on_meta(cfg, structure.num_classes)
    return {name: tuple(value.shape) for name, value in built.state_dict().items()}


def pyramid_nodes(structure: Structure) -> list[Node]:
    """Return the nodes of a cell, in order: their level, and the ids of the maps they fuse."""
    return build_topology(structure.topology, structure.network.num_levels)


def config_name(model: str, source: str) -> str:
    """Return the config of a release (``d3_640_coco``), or of a model where there is no release."""
    is_release = source.startswith(f'{model}-') and '.' not in source
    return f'{(source if is_release else model).replace("-", "_")}_coco'


def embed_config(meta: dict[str, Any]) -> None:
    """Put the config of converted weights into their meta, with its classes, anchors and padding.

    mmdet's inferencer then needs no config file.

    Args:
        meta: of a checkpoint, gets ``cfg`` and ``config`` where there is a config for it.
    """
    path = config_path(config_name(meta['model'], meta['source']))
    if not path.is_file():
        return
    config = Config.fromfile(path)
    config.num_classes = len(meta['dataset_meta']['classes'])
    config.model.bbox_head.num_classes = config.num_classes
    if meta['anchor_aspects'] != 'sqrt2':
        config.model.bbox_head.anchor_generator.aspect_ratios = [
            list(pair) for pair in OLD_ASPECT_RATIOS
        ]
    if meta['padding'] == 'symmetric':
        backbone = config.model.backbone
        backbone.model_name = backbone.model_name.removeprefix('tf_')
    if meta['pool_type'] != 'max':
        config.model.neck.pool_type = meta['pool_type']
    meta['cfg'] = config.pretty_text
    meta[EMBEDDED] = embed(config)
