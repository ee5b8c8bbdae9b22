"""Key map of rwightman's effdet 0.4: ``tf_efficientdet_*`` and its own (native) models."""

from effdet_plugin.convert.rules import Dialect, Entry, Leaf

_BLOCK = 'backbone.model.blocks.{stage}.{index}'
_EFFDET_BLOCK = 'backbone.blocks.{stage}.{index}'
_NODE = 'neck.cells.{cell}.nodes.{node}'
_EFFDET_NODE = 'fpn.cell.{cell}.fnode.{node}'
_RESAMPLE = 'neck.cells.0.nodes.{node}.resamples.{position}'
_EFFDET_RESAMPLE = 'fpn.cell.0.fnode.{node}.combine.resample.{map}.conv'
_CLS, _BOX = 'bbox_head.cls_tower', 'bbox_head.box_tower'

_WEIGHT, _BIAS = Leaf('.weight', '.weight'), Leaf('.bias', '.bias')
_DEPTHWISE = Leaf('.conv_dw.weight', '.depthwise.weight')

LEAVES = {
    'conv': (_WEIGHT,),
    'biased': (_WEIGHT, _BIAS),
    'plain': (Leaf('.conv.weight', '.weight'), Leaf('.conv.bias', '.bias')),
    'separable': (
        _DEPTHWISE,
        Leaf('.conv_pw.weight', '.pointwise.weight'),
        Leaf('.conv_pw.bias', '.pointwise.bias'),
    ),
    'norm': (
        _WEIGHT,
        _BIAS,
        *(Leaf(name, name) for name in ('.running_mean', '.running_var', '.num_batches_tracked')),
    ),
    'fusion': (Leaf('', ''),),
    'box_plain': (
        Leaf('.conv.weight', '.weight', ('boxes',)),
        Leaf('.conv.bias', '.bias', ('boxes',)),
    ),
    'box_separable': (
        _DEPTHWISE,
        Leaf('.conv_pw.weight', '.pointwise.weight', ('boxes',)),
        Leaf('.conv_pw.bias', '.pointwise.bias', ('boxes',)),
    ),
}


def _block_entries(axis: str, layers: dict[str, str]) -> tuple[Entry, ...]:
    return tuple(
        Entry(f'{_EFFDET_BLOCK}.{name}', f'{_BLOCK}.{name}', kind, axis)
        for name, kind in layers.items()
    )


_SE = {'se.conv_reduce': 'biased', 'se.conv_expand': 'biased'}
_NARROW = {'conv_dw': 'conv', 'bn1': 'norm', **_SE, 'conv_pw': 'conv', 'bn2': 'norm'}
_WIDE = {**_NARROW, 'conv_pwl': 'conv', 'bn3': 'norm'}

TABLE = (
    Entry('backbone.conv_stem', 'backbone.model.conv_stem', 'conv'),
    Entry('backbone.bn1', 'backbone.model.bn1', 'norm'),
    *_block_entries('wide_blocks', _WIDE),
    *_block_entries('narrow_blocks', _NARROW),
    Entry('fpn.resample.3.conv', 'neck.extra_levels.0.conv', 'plain'),
    Entry('fpn.resample.3.conv.bn', 'neck.extra_levels.0.bn', 'norm'),
    Entry(f'{_EFFDET_NODE}.combine.edge_weights', f'{_NODE}.fusion.weights', 'fusion', 'nodes'),
    Entry(f'{_EFFDET_NODE}.after_combine.conv', f'{_NODE}.conv', 'mixing', 'nodes'),
    Entry(f'{_EFFDET_NODE}.after_combine.conv.bn', f'{_NODE}.bn', 'norm', 'nodes'),
    Entry(_EFFDET_RESAMPLE, f'{_RESAMPLE}.conv', 'plain', 'resamples'),
    Entry(f'{_EFFDET_RESAMPLE}.bn', f'{_RESAMPLE}.bn', 'norm', 'resamples'),
    Entry('class_net.conv_rep.{repeat}', f'{_CLS}.convs.{{repeat}}', 'mixing', 'repeats'),
    Entry(
        'class_net.bn_rep.{repeat}.{level}.bn',
        f'{_CLS}.norms.{{repeat}}.{{level}}',
        'norm',
        'norms',
    ),
    Entry('class_net.predict', f'{_CLS}.predict', 'mixing'),
    Entry('box_net.conv_rep.{repeat}', f'{_BOX}.convs.{{repeat}}', 'mixing', 'repeats'),
    Entry(
        'box_net.bn_rep.{repeat}.{level}.bn', f'{_BOX}.norms.{{repeat}}.{{level}}', 'norm', 'norms'
    ),
    Entry('box_net.predict', f'{_BOX}.predict', 'box_mixing'),
)

# The biases that a BN follows: native models do without them.
REDUNDANT_BIASES = (
    r'^neck\.extra_levels\.0\.conv\.bias$|\.resamples\.\d+\.conv\.bias$'
    r'|\.nodes\.\d+\.conv(\.pointwise)?\.bias$|\.convs\.\d+(\.pointwise)?\.bias$'
)

NATIVE = 'bias before BN that native effdet models do without: zero is the same'

DIALECT = Dialect(
    name='effdet',
    table=TABLE,
    leaves=LEAVES,
    aliases=(
        (r'^(?:module\.|model\.)*(?=(?:backbone|fpn|class_net|box_net)\.)', ''),
        # `head_bn_level_first` orders the heads' BN by level, without the inner `.bn`.
        (r'^(class|box)_net\.bn_rep\.(\d+)\.(\d+)\.(?!bn\.)', r'\1_net.bn_rep.\3.\2.bn.'),
    ),
    left_out=((r'^(?:module\.)*anchors\.boxes$', 'anchors, which the config makes'),),
    fills=(
        (REDUNDANT_BIASES, NATIVE),
        (r'\.num_batches_tracked$', 'counter that older files do not have'),
    ),
    probes={
        'stem': r'^backbone\.conv_stem\.weight$',
        'block': r'^backbone\.blocks\.(\d+\.\d+)\.',
        'se': r'\.se\.',
        'match': r'^fpn\.resample\.3\.conv\.conv\.weight$',
        'match_norm': r'^fpn\.resample\.3\.conv\.bn\.weight$',
        'cell': r'^fpn\.cell\.(\d+)\.',
        'node': r'^fpn\.cell\.0\.fnode\.(\d+)\.',
        # Absent in native models, too, where ours is filled with zeros: never a reason to drop it.
        'node_bias': r'^fpn\.cell\.0\.fnode\.0\.after_combine\.conv\.',
        'fusion': r'^fpn\.cell\.0\.fnode\.0\.combine\.edge_weights$',
        'repeat': r'^class_net\.conv_rep\.(\d+)\.',
        'level': r'^class_net\.bn_rep\.0\.(\d+)\.',
        'depthwise': r'^box_net\.predict\.conv_dw\.weight$',
        'class_bias': r'^class_net\.predict\.(?:conv_pw|conv)\.bias$',
        'box_bias': r'^box_net\.predict\.(?:conv_pw|conv)\.bias$',
    },
    kernel_axes=(1, 0),
    fusion_rank=1,
    aspects='pairs_1.4_0.7',
)
