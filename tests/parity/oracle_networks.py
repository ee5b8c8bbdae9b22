"""Our networks with the weights of the oracle's recipe, by the name of an oracle file."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch import Tensor

import support
from effdet_plugin.convert.key_map import apply, invert
from effdet_plugin.convert.key_map_tensorflow import VARIABLES
from effdet_plugin.convert.networks import Structure, state_shapes
from effdet_plugin.ops.shapes import NoRandomValues

CONFIGS = support.REPOSITORY / 'configs' / 'efficientdet'

# What each option of a `net_d0_OPTION` file changes in the config of D0.
OPTIONS: dict[str, dict[str, Any]] = {
    'survival': dict(bbox_head=dict(survival_prob=0.8)),
    'nosep_c5': dict(neck=dict(separable=False), bbox_head=dict(separable=False, num_classes=5)),
    'cba': dict(neck=dict(conv_bn_act_pattern=True)),
    'cad': dict(neck=dict(conv_after_downsample=True)),
    'nobnresample': dict(neck=dict(apply_bn_for_resampling=False)),
    'qufpn': dict(neck=dict(topology='qufpn')),
    'attn': dict(neck=dict(fusion='attn')),
    'channelattn': dict(neck=dict(fusion='channel_attn')),
    'channelfastattn': dict(neck=dict(fusion='channel_fast_attn')),
    **{
        act: dict(
            backbone=dict(model_kwargs=dict(act_layer=timm_name)),
            neck=dict(act=act),
            bbox_head=dict(act=act),
        )
        for act, timm_name in (('relu', 'relu'), ('hswish', 'hard_swish'), ('mish', 'mish'))
    },
    'channels_last': dict(channels_last=True),
    'recompute_norm_act': dict(recompute_norm_act=True),
    'with_cp': dict(with_cp=True),
    'a12': dict(
        bbox_head=dict(num_classes=7, anchor_generator=dict(scales_per_octave=4)),
    ),
}


def build(model: str, option: str = '', every_endpoint: bool = False) -> Any:
    """A detector in evaluation mode.

    Args:
        model: Name of a config, ``'d7x'``.
        option: Key of :data:`OPTIONS`; anything else (a size) changes nothing.
        every_endpoint: Let the backbone return P1 to P5 instead of P3 to P5.
    """
    config = Config.fromfile(CONFIGS / f'{model}_coco.py')
    config.model.bbox_head.num_classes = 90
    config.merge_from_dict({'model': OPTIONS.get(option, {})})
    if every_endpoint:
        neck = config.model.neck
        neck.update(in_channels=[0, 0, *neck.in_channels], start_level=2)
        config.model.backbone.out_indices = (0, 1, 2, 3, 4)
    init_default_scope('mmdet')
    with NoRandomValues():
        detector = MODELS.build(config.model)
    detector.load_state_dict(_whole_recipe_state(model, structure_of(model, config.model)))
    return detector.eval()


def structure_of(model: str, config: ConfigDict) -> Structure:
    """What the converter has to know about a network, from its config."""
    neck, head = config.neck, config.bbox_head
    kinds = {'sum': 'sum', 'channel_attn': 'channel', 'channel_fast_attn': 'channel'}
    return Structure(
        model,
        num_classes=head.num_classes,
        num_anchors=3 * head.anchor_generator.scales_per_octave,
        fusion=kinds.get(neck.fusion, 'scalar'),
        topology=neck.get('topology', 'bifpn'),
        separable=neck.get('separable', True),
        node_bias=not neck.get('conv_bn_act_pattern', False),
        resample_norm=neck.get('apply_bn_for_resampling', True),
    )


# Networks of several sizes and options follow each other with the same weights.
@lru_cache(maxsize=1)
def _whole_recipe_state(model: str, structure: Structure) -> dict[str, Tensor]:
    return recipe_state(model, structure)


def recipe_state(
    model: str, structure: Structure, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, Tensor]:
    """The recipe's values of the reference's variables under our names.

    Args:
        model: Whose recipe.
        structure: Of the network.
        shapes: Names and shapes of a part of our network; None for all of it.
    """
    make = support.recipe().value
    ours = dict(shapes or state_shapes(structure))
    variables = invert(VARIABLES, structure, {n: torch.zeros(s) for n, s in ours.items()})
    names = {name: tuple(value.shape) for name, value in variables.items()}

    def read(name: str) -> Tensor:
        return torch.from_numpy(make(f'efficientdet-{model}', name, names[name]))

    return apply(VARIABLES, structure, ours, names, read).state
