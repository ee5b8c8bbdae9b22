"""Key maps of PyTorch checkpoints: rwightman's effdet 0.4 and our own.

:data:`EFFDET` serves ``tf_efficientdet_*`` and effdet's own (native) models; :data:`OWN` makes our
checkpoints a source, so that they can be turned into the other formats.
"""

from dataclasses import replace

from effdet_plugin.convert.key_map import KeyMap, Layer, Param

_BLOCK = 'backbone.model.blocks.{stage}.{index}'
_NODE = 'neck.cells.{cell}.nodes.{node}'
_RESAMPLE = f'{_NODE}.resamples.{{position}}'  # in the first cell only
_EXTRA = 'neck.extra_levels.{extra}'
_CLS, _BOX = 'bbox_head.cls_tower', 'bbox_head.box_tower'

_EFFDET_BLOCK = 'backbone.blocks.{stage}.{index}'
_EFFDET_NODE = 'fpn.cell.{cell}.fnode.{node}'
_EFFDET_RESAMPLE = 'fpn.cell.0.fnode.{node}.combine.resample.{map}.conv'

_WEIGHT, _BIAS = Param('.weight', '.weight'), Param('.bias', '.bias')
_DEPTHWISE = Param('.conv_dw.weight', '.depthwise.weight')

_PARAMS = {
    'conv': (_WEIGHT, _BIAS),
    'resample': (Param('.conv.weight', '.weight'), Param('.conv.bias', '.bias')),
    'norm': (
        _WEIGHT,
        _BIAS,
        *(Param(name, name) for name in ('.running_mean', '.running_var', '.num_batches_tracked')),
    ),
    'fusion': (Param('', ''),),
    # Separable or not: our names tell which.
    'conv3x3': (
        _DEPTHWISE,
        Param('.conv_pw.weight', '.pointwise.weight'),
        Param('.conv_pw.bias', '.pointwise.bias'),
        Param('.conv.weight', '.weight'),
        Param('.conv.bias', '.bias'),
    ),
    'box_conv3x3': (
        _DEPTHWISE,
        Param('.conv_pw.weight', '.pointwise.weight', ('boxes',)),
        Param('.conv_pw.bias', '.pointwise.bias', ('boxes',)),
        Param('.conv.weight', '.weight', ('boxes',)),
        Param('.conv.bias', '.bias', ('boxes',)),
    ),
}
_BLOCK_LAYERS = {
    **dict.fromkeys(('conv_pw', 'conv_dw', 'conv_pwl', 'se.conv_reduce', 'se.conv_expand'), 'conv'),
    **dict.fromkeys(('bn1', 'bn2', 'bn3'), 'norm'),
}
_LAYERS = (
    Layer('backbone.conv_stem', 'backbone.model.conv_stem', 'conv'),
    Layer('backbone.bn1', 'backbone.model.bn1', 'norm'),
    *(
        Layer(f'{_EFFDET_BLOCK}.{name}', f'{_BLOCK}.{name}', kind)
        for name, kind in _BLOCK_LAYERS.items()
    ),
    Layer('fpn.resample.3.conv', f'{_EXTRA}.conv', 'resample'),
    Layer('fpn.resample.3.conv.bn', f'{_EXTRA}.bn', 'norm'),
    Layer(f'{_EFFDET_NODE}.combine.edge_weights', f'{_NODE}.fusion.weights', 'fusion'),
    Layer(f'{_EFFDET_NODE}.after_combine.conv', f'{_NODE}.conv', 'conv3x3'),
    Layer(f'{_EFFDET_NODE}.after_combine.conv.bn', f'{_NODE}.bn', 'norm'),
    Layer(_EFFDET_RESAMPLE, f'{_RESAMPLE}.conv', 'resample'),
    Layer(f'{_EFFDET_RESAMPLE}.bn', f'{_RESAMPLE}.bn', 'norm'),
    Layer('class_net.conv_rep.{repeat}', f'{_CLS}.convs.{{repeat}}', 'conv3x3'),
    Layer('class_net.bn_rep.{repeat}.{level}.bn', f'{_CLS}.norms.{{repeat}}.{{level}}', 'norm'),
    Layer('class_net.predict', f'{_CLS}.predict', 'conv3x3'),
    Layer('box_net.conv_rep.{repeat}', f'{_BOX}.convs.{{repeat}}', 'conv3x3'),
    Layer('box_net.bn_rep.{repeat}.{level}.bn', f'{_BOX}.norms.{{repeat}}.{{level}}', 'norm'),
    Layer('box_net.predict', f'{_BOX}.predict', 'box_conv3x3'),
)

# The biases that a BN follows: native models do without them.
_REDUNDANT_BIASES = (
    r'^neck\.extra_levels\.0\.conv\.bias$|\.resamples\.\d+\.conv\.bias$'
    r'|\.nodes\.\d+\.conv(\.pointwise)?\.bias$|\.convs\.\d+(\.pointwise)?\.bias$'
)
NATIVE = 'bias before BN that native effdet models do without: zero is the same'

EFFDET = KeyMap(
    name='effdet',
    layers=_LAYERS,
    params=_PARAMS,
    aspect_ratios='pairs_1.4_0.7',
    aliases=(
        (r'^(?:module\.|model\.)*(?=(?:backbone|fpn|class_net|box_net)\.)', ''),
        # `head_bn_level_first` orders the heads' BN by level, without the inner `.bn`.
        (r'^(class|box)_net\.bn_rep\.(\d+)\.(\d+)\.(?!bn\.)', r'\1_net.bn_rep.\3.\2.bn.'),
    ),
    left_out=((r'^(?:module\.)*anchors\.boxes$', 'anchors, which the config makes'),),
    defaults=(
        (_REDUNDANT_BIASES, NATIVE),
        (r'\.num_batches_tracked$', 'counter that older files do not have'),
    ),
)

OWN = KeyMap(
    name='effdet_plugin',
    layers=tuple(replace(layer, source=layer.ours) for layer in _LAYERS),
    params={
        kind: tuple(Param(param.ours, param.ours) for param in params)
        for kind, params in _PARAMS.items()
    },
    aspect_ratios='sqrt2',
    aliases=((r'^module\.', ''),),
    left_out=(
        (r'^data_preprocessor\.', 'pixel statistics, which the config holds'),
        (r'^steps$', 'counter of the moving average'),
    ),
    defaults=((r'\.num_batches_tracked$', 'counter that this file does not have'),),
)
