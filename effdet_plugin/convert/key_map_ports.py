"""Key maps of other PyTorch ports: zylo117's and mmdetection's ``projects/EfficientDet``.

Source of the names: zylo117/Yet-Another-EfficientDet-Pytorch 15403b5 (``backbone.py``,
``efficientdet/model.py``), open-mmlab/mmdetection 3.2.0 (``projects/EfficientDet/efficientdet``,
``mmdet/models/backbones/efficientnet.py``).

Both pad with zeros before max pooling, and both name a node by its level and direction: they call
the way to the finer levels "up". The outputs of mmdetection's anchors stand in the order of its
``AnchorGenerator``, aspect ratio by aspect ratio, unless it was trained with the project's
``YXYX...`` parts, which keep the reference's order of anchors and of deltas.
"""

from dataclasses import replace

from effdet_plugin.convert.key_map import KeyMap, Layer, Param

_BLOCK = 'backbone.model.blocks.{stage}.{index}'
_NODE = 'neck.cells.{cell}.nodes.{node}'
_RESAMPLE = f'{_NODE}.resamples.{{position}}'  # in the first cell only
_EXTRA = 'neck.extra_levels.{extra}'
_CLS, _BOX = 'bbox_head.cls_tower', 'bbox_head.box_tower'
_STATISTICS = ('.weight', '.bias', '.running_mean', '.running_var', '.num_batches_tracked')


def _conv(inner: str = '') -> tuple[Param, ...]:
    return Param(f'{inner}.weight', '.weight'), Param(f'{inner}.bias', '.bias')


def _separable(inner: str, *layouts: str) -> tuple[Param, ...]:
    """Return the tensors of a separable convolution; ``inner`` stands before ``.weight``."""
    return (
        Param(f'.depthwise_conv{inner}.weight', '.depthwise.weight'),
        Param(f'.pointwise_conv{inner}.weight', '.pointwise.weight', layouts),
        Param(f'.pointwise_conv{inner}.bias', '.pointwise.bias', layouts),
    )


def _backbone(expand: str, depthwise: str, project: str, *norms: str) -> tuple[Layer, ...]:
    """Return the lines of the blocks; three norms stand in the order of the convolutions."""
    return (
        Layer(depthwise, f'{_BLOCK}.conv_dw', 'conv'),
        Layer(expand, f'{_BLOCK}.conv_pw', 'conv', when=True),
        Layer(project, f'{_BLOCK}.conv_pwl', 'conv', when=True),
        *(Layer(norm, f'{_BLOCK}.bn{i}', 'norm', when=True) for i, norm in enumerate(norms, 1)),
        # The blocks of the first stage: their only 1x1 convolution projects.
        Layer(project, f'{_BLOCK}.conv_pw', 'conv', when=False),
        *(
            Layer(norm, f'{_BLOCK}.bn{i}', 'norm', when=False)
            for i, norm in enumerate(norms[1:], 1)
        ),
    )


def _pyramid(root: str, extra: str, conv: str, norm: str, *matches: str) -> tuple[Layer, ...]:
    """Return the lines of a pyramid.

    Args:
        root: name of the list of cells.
        extra: the block that makes P6.
        conv: the channel-matching convolution within its block.
        norm: its norm.
        matches: end of the block's name on the way to the finer levels, and back.
    """
    lines = [
        Layer(f'{root}.0.{extra}{conv}', f'{_EXTRA}.conv', 'match'),
        Layer(f'{root}.0.{extra}{norm}', f'{_EXTRA}.bn', 'norm'),
    ]
    for way, number, match, is_down in zip(
        ('up', 'down'), (1, 2), matches, (True, False), strict=True
    ):
        node = f'{root}.{{cell}}.conv{{node_level}}_{way}'
        block = f'{root}.0.p{{node_level}}_{match}'
        weights = f'{root}.{{cell}}.p{{node_level}}_w{number}'
        lines += [
            Layer(weights, f'{_NODE}.fusion.weights', 'fusion', is_down),
            Layer(node, f'{_NODE}.conv', 'conv3x3', is_down),
            Layer(f'{node}.bn', f'{_NODE}.bn', 'norm', is_down),
            Layer(f'{block}{conv}', f'{_RESAMPLE}.conv', 'match', is_down),
            Layer(f'{block}{norm}', f'{_RESAMPLE}.bn', 'norm', is_down),
        ]
    return tuple(lines)


def _head(ours: str, convs: str, norms: str, predict: str, kind: str) -> tuple[Layer, ...]:
    return (
        Layer(convs, f'{ours}.convs.{{repeat}}', 'conv3x3'),
        Layer(norms, f'{ours}.norms.{{repeat}}.{{level}}', 'norm'),
        Layer(predict, f'{ours}.predict', kind),
    )


_NORM = tuple(Param(name, name) for name in _STATISTICS)
_FUSION = (Param('', ''),)
_NO_COUNTERS = ((r'\.num_batches_tracked$', 'counter that this file does not have'),)

_ZYLO_BLOCK = 'backbone_net.model._blocks.{block}'

ZYLO117 = KeyMap(
    name='zylo117',
    layers=(
        Layer('backbone_net.model._conv_stem', 'backbone.model.conv_stem', 'conv'),
        Layer('backbone_net.model._bn0', 'backbone.model.bn1', 'norm'),
        *_backbone(
            *(f'{_ZYLO_BLOCK}._{name}_conv' for name in ('expand', 'depthwise', 'project')),
            *(f'{_ZYLO_BLOCK}._bn{i}' for i in range(3)),
        ),
        Layer(f'{_ZYLO_BLOCK}._se_reduce', f'{_BLOCK}.se.conv_reduce', 'conv'),
        Layer(f'{_ZYLO_BLOCK}._se_expand', f'{_BLOCK}.se.conv_expand', 'conv'),
        *_pyramid('bifpn', 'p5_to_p6', '.0', '.1', 'down_channel', 'down_channel_2'),
        *_head(
            _CLS,
            'classifier.conv_list.{repeat}',
            'classifier.bn_list.{level}.{repeat}',
            'classifier.header',
            'conv3x3',
        ),
        *_head(
            _BOX,
            'regressor.conv_list.{repeat}',
            'regressor.bn_list.{level}.{repeat}',
            'regressor.header',
            'box_conv3x3',
        ),
    ),
    params={
        'conv': _conv('.conv'),
        'match': _conv('.conv'),
        'norm': _NORM,
        'fusion': _FUSION,
        'conv3x3': _separable('.conv'),
        'box_conv3x3': _separable('.conv', 'boxes'),
    },
    aspect_ratios='pairs_1.4_0.7',
    aliases=((r'^(?:module\.|model\.)*(?=(?:backbone_net|bifpn|classifier|regressor)\.)', ''),),
    defaults=_NO_COUNTERS,
    pool_type='max_zero',
    idle_fusion=r'^bifpn\.\d+\.p\d_w[12]$',
)

_MM_BLOCK = 'backbone.layers.{layer}.{place}'
_MM_CONVS = tuple(f'{_MM_BLOCK}.{name}_conv' for name in ('expand', 'depthwise', 'linear'))

MMDET = KeyMap(
    name="mmdetection's projects/EfficientDet",
    layers=(
        Layer('backbone.layers.0', 'backbone.model.conv_stem', 'conv'),
        Layer('backbone.layers.0.bn', 'backbone.model.bn1', 'norm'),
        *_backbone(*_MM_CONVS, *(f'{conv}.bn' for conv in _MM_CONVS)),
        Layer(f'{_MM_BLOCK}.se.conv1', f'{_BLOCK}.se.conv_reduce', 'conv'),
        Layer(f'{_MM_BLOCK}.se.conv2', f'{_BLOCK}.se.conv_expand', 'conv'),
        *_pyramid(
            'neck.bifpn', 'p5_to_p6.0', '.down_conv', '.bn', 'down_channel', 'level_connection'
        ),
        *_head(
            _CLS,
            'bbox_head.cls_conv_list.{repeat}',
            'bbox_head.cls_bn_list.{repeat}.{level}',
            'bbox_head.cls_header',
            'class_conv3x3',
        ),
        *_head(
            _BOX,
            'bbox_head.reg_conv_list.{repeat}',
            'bbox_head.reg_bn_list.{repeat}.{level}',
            'bbox_head.reg_header',
            'box_conv3x3',
        ),
    ),
    params={
        'conv': _conv('.conv'),
        'match': _conv(),
        'norm': _NORM,
        'fusion': _FUSION,
        'conv3x3': _separable(''),
        'class_conv3x3': _separable('', 'ratio_major'),
        'box_conv3x3': _separable('', 'ratio_major'),
    },
    aspect_ratios='sqrt2',
    aliases=((r'^module\.(?=(?:backbone|neck|bbox_head)\.)', ''),),
    left_out=(
        (r'^data_preprocessor\.', 'pixel statistics, which the config holds'),
        (r'^steps$', 'counter of the moving average'),
    ),
    defaults=_NO_COUNTERS,
    pool_type='max_zero',
)

# Trained with the project's YXYX parts, or written by its convert_tf_to_pt.py.
MMDET_YXYX = replace(
    MMDET,
    params={
        **MMDET.params,
        'class_conv3x3': _separable(''),
        'box_conv3x3': _separable('', 'boxes'),
    },
)
