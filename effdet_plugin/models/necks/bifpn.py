"""BiFPN: bidirectional feature pyramid of repeated cells; the topology of a cell is a node list.

One cell over five levels (``topology='bifpn'``); each node ● fuses its inputs with learned weights:

    P7 ─────────────────────●──> P7
       ╲                   ╱
    P6 ──●────────────────●────> P6     top-down ●: (level, level above)
       ╲  ╲___           ╱
    P5 ──●────────────●───────> P5      bottom-up ●: (level, its top-down node, level below)
       ╲             ╱
    P4 ──●─────────●─────────> P4
       ╲          ╱
    P3 ──●───────────────────> P3       the finest output is a top-down node

Source: Tan, Pang, Le, "EfficientDet", CVPR 2020, section 3; google/automl
efficientdet/tf2/efficientdet_keras.py (the reference) for node order, separate channel-matching
convolutions of each use, and the bias before BN.
"""

from collections.abc import Sequence
from typing import Any

from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from effdet_plugin.errors import ConfigError
from effdet_plugin.models.layers.activation_checkpoint import checkpoint_activations
from effdet_plugin.models.layers.conv import (
    NORM_MOMENTUM,
    BatchNorm2d,
    build_activation,
    build_conv,
    init_glorot_uniform,
)
from effdet_plugin.models.layers.fusion import build_fusion, fusion_scales
from effdet_plugin.models.layers.resample import Resample
from effdet_plugin.models.necks.topology import NodeSpec, Topology, build_topology, output_ids


class FusionNode(nn.Module):
    """Resample the inputs to the node's level, fuse them, activate, convolve, normalise.

    Args:
        in_channels: channels of each input, in order.
        channels: channels of the output.
        fusion: see :func:`~effdet_plugin.models.layers.fusion.build_fusion`.
        act: name of the activation before the convolution (after BN with ``conv_bn_act_pattern``).
        separable: separable or plain 3x3 convolution.
        conv_bn_act_pattern: convolution without bias, BN, activation, in this order.
        norm_momentum: momentum of BN.
        resample_cfg: arguments of :class:`~effdet_plugin.models.layers.resample.Resample`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        fusion: str | dict[str, Any],
        act: str,
        separable: bool,
        conv_bn_act_pattern: bool,
        norm_momentum: float,
        resample_cfg: dict[str, Any],
    ) -> None:
        super().__init__()
        # Each input has its own convolution, even if two nodes use one map, as in the reference.
        self.resamples = nn.ModuleList(Resample(c, channels, **resample_cfg) for c in in_channels)
        self.fusion = build_fusion(fusion, len(in_channels), channels)
        self.act = build_activation(act)
        self.conv = build_conv(channels, channels, separable, bias=not conv_bn_act_pattern)
        self.bn = BatchNorm2d(channels, norm_momentum)
        self.act_last = conv_bn_act_pattern

    def forward(
        self, inputs: Sequence[Tensor], size: tuple[int, int], scales: Sequence[Tensor] = ()
    ) -> Tensor:
        """Maps ``(B, C_k, h_k, w_k)`` -> ``(B, channels, *size)``.

        Args:
            inputs: the maps.
            size: (height, width) of the node's level.
            scales: of the fusion, where they are known; see
                :func:`~effdet_plugin.models.layers.fusion.fusion_scales`.

        Raises:
            ConfigError: no integer stride pools a map to ``size``.
        """
        maps = [resample(x, size) for resample, x in zip(self.resamples, inputs, strict=True)]
        for x, resized in zip(inputs, maps, strict=True):
            if resized.shape[-2:] != size:
                raise ConfigError(
                    f'BiFPN: a map of {tuple(x.shape[-2:])} cannot be pooled to {tuple(size)}, '
                    'which is not its size halved and rounded up; make the sides of the images '
                    "multiples of the backbone's coarsest stride"
                )
        x = self.fusion(maps, scales) if scales else self.fusion(maps)
        if self.act_last:
            return self.act(self.bn(self.conv(x)))
        return self.bn(self.conv(self.act(x)))


class PyramidCell(nn.Module):
    """One cell: all nodes of a topology.

    Args:
        topology: nodes in order.
        in_channels: channels of each level's input map.
        channels: channels of every node.
        **node_cfg: further arguments of :class:`FusionNode`.
    """

    def __init__(
        self, topology: Topology, in_channels: Sequence[int], channels: int, **node_cfg: Any
    ) -> None:
        super().__init__()
        self.topology = topology
        self.outputs = output_ids(topology, len(in_channels))
        # Indexed by id: the input maps come first, then one map per node.
        channels_of = list(in_channels) + [channels] * len(topology)
        self.nodes = nn.ModuleList(
            FusionNode([channels_of[i] for i in node.inputs], channels, **node_cfg)
            for node in topology
        )

    def forward(
        self, feats: Sequence[Tensor], scales: Sequence[Sequence[Tensor]] = ()
    ) -> list[Tensor]:
        """Maps of all levels, finest first -> maps of the same sizes with ``channels`` channels.

        Args:
            feats: the maps.
            scales: of each node's fusion, where they are known.
        """
        maps = self.run_nodes(feats, scales)
        return [maps[i] for i in self.outputs]

    def run_nodes(
        self, feats: Sequence[Tensor], scales: Sequence[Sequence[Tensor]] = ()
    ) -> list[Tensor]:
        """Input maps followed by the output of every node, in order."""
        maps = list(feats)
        sizes = [(x.shape[-2], x.shape[-1]) for x in feats]
        scales = scales or [()] * len(self.nodes)
        for spec, node, own in zip(self.topology, self.nodes, scales, strict=True):
            maps.append(node([maps[i] for i in spec.inputs], sizes[spec.level], own))
        return maps


@MODELS.register_module()
class BiFPN(BaseModule):
    """Weighted bidirectional feature pyramid network, for any mmdet detector.

    Args:
        in_channels: channels of the backbone's maps, finest first.
        out_channels: channels of all outputs.
        num_outs: number of outputs; levels beyond the backbone's are pooled from its last map
            (which a 1x1 convolution and BN bring to ``out_channels``).
        num_cells: number of cells.
        topology: ``'bifpn'``, ``'fpn'``, ``'panet'``, ``'fully_connected'``, ``'qufpn'`` or a node
            list, see :mod:`effdet_plugin.models.necks.topology`.
        fusion: ``'fast_attn'``, ``'attn'``, ``'sum'``, ``'channel_fast_attn'``, ``'channel_attn'``,
            or the config of a fusion of your own, see
            :func:`~effdet_plugin.models.layers.fusion.build_fusion`.
        act: name of the activation, such as ``'swish'`` or ``'relu6'``.
        start_level: index of the first backbone map that is used.
        separable: separable convolutions in the nodes.
        conv_bn_act_pattern: convolution without bias, BN, activation instead of the reference's
            activation, convolution, BN.
        apply_bn_for_resampling: BN after the channel-matching convolutions.
        conv_after_downsample: match channels after pooling instead of before.
        pool_type: ``'max'``, ``'max_zero'`` (padded with zeros, see
            :class:`~effdet_plugin.models.layers.resample.Resample`) or ``'avg'`` for downsampling.
        norm_momentum: momentum of every BN, in (0, 1]: the weight of a new batch in its running
            statistics. With the reference's 0.01 these need thousands of steps to follow the
            weights; use 0.1 for trainings of some hundred steps.
        with_cp: recompute the activations of each cell in backward, to save memory.
        init_cfg: mmengine's; without it the reference's Glorot uniform kernels.

    Raises:
        ConfigError: fewer outputs than inputs used; an unknown ``topology``, ``fusion``, ``act`` or
            ``pool_type``; ``norm_momentum`` out of range.

    Examples:
        >>> import torch
        >>> neck = BiFPN([8, 16, 32], out_channels=4, num_outs=5, num_cells=2)
        >>> maps = [torch.rand(1, c, s, s) for c, s in [(8, 40), (16, 20), (32, 10)]]
        >>> [tuple(x.shape[1:]) for x in neck(maps)]
        [(4, 40, 40), (4, 20, 20), (4, 10, 10), (4, 5, 5), (4, 3, 3)]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int = 5,
        num_cells: int = 3,
        topology: str | Sequence[NodeSpec] = 'bifpn',
        fusion: str | dict[str, Any] = 'fast_attn',
        act: str = 'swish',
        start_level: int = 0,
        separable: bool = True,
        conv_bn_act_pattern: bool = False,
        apply_bn_for_resampling: bool = True,
        conv_after_downsample: bool = False,
        pool_type: str = 'max',
        norm_momentum: float = NORM_MOMENTUM,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        used = list(in_channels)[start_level:]
        num_extra = num_outs - len(used)
        if num_extra < 0 or not used:
            raise ConfigError(
                f'BiFPN: num_outs={num_outs} for {len(used)} inputs (start_level={start_level}); '
                'it must be at least their number'
            )
        self.num_inputs = len(in_channels)
        self.start_level = start_level
        self.out_channels = out_channels
        self.with_cp = with_cp
        resample_cfg: dict[str, Any] = dict(
            apply_bn=apply_bn_for_resampling,
            conv_after_downsample=conv_after_downsample,
            pool_type=pool_type,
            norm_momentum=norm_momentum,
        )
        # Only the first extra level changes the channels.
        extra_in = [used[-1]] + [out_channels] * (num_extra - 1)
        self.extra_levels = nn.ModuleList(
            Resample(c, out_channels, **resample_cfg) for c in extra_in[:num_extra]
        )
        nodes = build_topology(topology, num_outs)
        first_in = used + [out_channels] * num_extra
        self.cells = nn.ModuleList(
            PyramidCell(
                nodes,
                first_in if number == 0 else [out_channels] * num_outs,
                out_channels,
                fusion=fusion,
                act=act,
                separable=separable,
                conv_bn_act_pattern=conv_bn_act_pattern,
                norm_momentum=norm_momentum,
                resample_cfg=resample_cfg,
            )
            for number in range(num_cells)
        )
        init_glorot_uniform(self.extra_levels)
        for node in self.modules():
            if isinstance(node, FusionNode):
                # Not the fusion: a user's own keeps the values that its constructor sets.
                init_glorot_uniform(nn.ModuleList([node.resamples, node.conv]))

    def add_levels(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """Maps of the backbone from ``start_level`` on, and the coarser ones made from the last."""
        maps = list(feats)[self.start_level :]
        # Once, before the first cell, and from the backbone's own last map, as in the reference.
        for level in self.extra_levels:
            height, width = maps[-1].shape[-2:]
            maps.append(level(maps[-1], ((height + 1) // 2, (width + 1) // 2)))
        return maps

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Fuse backbone maps into ``num_outs`` maps ``(B, out_channels, h, w)``, finest first.

        Args:
            feats: ``(B, in_channels[i], h_i, w_i)``, each half the size of the one before, rounded
                up.

        Raises:
            ConfigError: the number of maps is not that of ``in_channels``.
        """
        if len(feats) != self.num_inputs:
            raise ConfigError(f'BiFPN: got {len(feats)} maps, in_channels names {self.num_inputs}')
        maps = self.add_levels(feats)
        cells: Any = self.cells
        scales = iter(
            fusion_scales([node.fusion for cell in cells for node in cell.nodes], maps[0].dtype)
        )
        recompute = self.with_cp and self.training
        for cell in cells:
            own = [next(scales) for _ in cell.nodes]
            maps = checkpoint_activations(cell, maps, own) if recompute else cell(maps, own)
        return tuple(maps)
