"""Key map of google/automl's TF2 object checkpoints by attribute path, where names are absent."""

from effdet_plugin.convert import automl
from effdet_plugin.convert.rules import Dialect, Entry

_BLOCK = 'backbone.model.blocks.{stage}.{index}'
_TF_BLOCK = 'backbone/_blocks/{block}'
_NODE = 'neck.cells.{cell}.nodes.{node}'
_TF_NODE = 'fpn_cells/cells/{cell}/fnodes/{node}'
_RESAMPLE = 'neck.cells.0.nodes.{node}.resamples.{position}'
_TF_RESAMPLE = 'fpn_cells/cells/0/fnodes/{node}/resample_layers/{position}'
_CLS, _BOX = 'bbox_head.cls_tower', 'bbox_head.box_tower'

TABLE = (
    Entry('backbone/_stem/_conv_stem', 'backbone.model.conv_stem', 'conv'),
    Entry('backbone/_stem/_bn', 'backbone.model.bn1', 'norm'),
    Entry(f'{_TF_BLOCK}/_expand_conv', f'{_BLOCK}.conv_pw', 'conv', 'wide_blocks'),
    Entry(f'{_TF_BLOCK}/_bn0', f'{_BLOCK}.bn1', 'norm', 'wide_blocks'),
    Entry(f'{_TF_BLOCK}/_depthwise_conv', f'{_BLOCK}.conv_dw', 'depthwise', 'wide_blocks'),
    Entry(f'{_TF_BLOCK}/_bn1', f'{_BLOCK}.bn2', 'norm', 'wide_blocks'),
    Entry(f'{_TF_BLOCK}/_se/_se_reduce', f'{_BLOCK}.se.conv_reduce', 'plain', 'wide_blocks'),
    Entry(f'{_TF_BLOCK}/_se/_se_expand', f'{_BLOCK}.se.conv_expand', 'plain', 'wide_blocks'),
    Entry(f'{_TF_BLOCK}/_project_conv', f'{_BLOCK}.conv_pwl', 'conv', 'wide_blocks'),
    Entry(f'{_TF_BLOCK}/_bn2', f'{_BLOCK}.bn3', 'norm', 'wide_blocks'),
    # Without an expansion, _bn1 is still the depthwise one and _bn2 the projection's.
    Entry(f'{_TF_BLOCK}/_depthwise_conv', f'{_BLOCK}.conv_dw', 'depthwise', 'narrow_blocks'),
    Entry(f'{_TF_BLOCK}/_bn1', f'{_BLOCK}.bn1', 'norm', 'narrow_blocks'),
    Entry(f'{_TF_BLOCK}/_se/_se_reduce', f'{_BLOCK}.se.conv_reduce', 'plain', 'narrow_blocks'),
    Entry(f'{_TF_BLOCK}/_se/_se_expand', f'{_BLOCK}.se.conv_expand', 'plain', 'narrow_blocks'),
    Entry(f'{_TF_BLOCK}/_project_conv', f'{_BLOCK}.conv_pw', 'conv', 'narrow_blocks'),
    Entry(f'{_TF_BLOCK}/_bn2', f'{_BLOCK}.bn2', 'norm', 'narrow_blocks'),
    Entry('resample_layers/0/conv2d', 'neck.extra_levels.0.conv', 'plain'),
    Entry('resample_layers/0/bn', 'neck.extra_levels.0.bn', 'norm'),
    Entry(
        f'{_TF_NODE}/WSM{{suffix}}', f'{_NODE}.fusion.weights', 'fusion', 'nodes', per_input=True
    ),
    Entry(f'{_TF_NODE}/op_after_combine/conv_op', f'{_NODE}.conv', 'mixing', 'nodes'),
    Entry(f'{_TF_NODE}/op_after_combine/bn', f'{_NODE}.bn', 'norm', 'nodes'),
    Entry(f'{_TF_RESAMPLE}/conv2d', f'{_RESAMPLE}.conv', 'plain', 'resamples'),
    Entry(f'{_TF_RESAMPLE}/bn', f'{_RESAMPLE}.bn', 'norm', 'resamples'),
    Entry('class_net/conv_ops/{repeat}', f'{_CLS}.convs.{{repeat}}', 'mixing', 'repeats'),
    Entry('class_net/bns/{repeat}/{level}', f'{_CLS}.norms.{{repeat}}.{{level}}', 'norm', 'norms'),
    Entry('class_net/classes', f'{_CLS}.predict', 'mixing'),
    Entry('box_net/conv_ops/{repeat}', f'{_BOX}.convs.{{repeat}}', 'mixing', 'repeats'),
    Entry('box_net/bns/{repeat}/{level}', f'{_BOX}.norms.{{repeat}}.{{level}}', 'norm', 'norms'),
    Entry('box_net/boxes', f'{_BOX}.predict', 'box_mixing'),
)

ROOTS = r'backbone|resample_layers|fpn_cells|class_net|box_net'

DIALECT = Dialect(
    name='google/automl (object checkpoint)',
    table=TABLE,
    leaves=automl.LEAVES,
    aliases=(
        (rf'^(?:.*?/)?(?=(?:{ROOTS})/)', ''),
        (r'^backbone/_stem/_bn0/', 'backbone/_stem/_bn/'),
        # Older versions name a level's BN, newer ones count them.
        *((rf'/bns/(\d+)/level-{level + 3}/', rf'/bns/\1/{level}/') for level in range(6)),
        # The same weights hang on the node as `vars`, too.
        (r'/vars/0(/|$)', r'/WSM\1'),
        (r'/vars/(\d+)(/|$)', r'/WSM_\1\2'),
    ),
    left_out=automl.DIALECT.left_out,
    fills=automl.DIALECT.fills,
    average=automl.DIALECT.average,
    probes={
        'stem': r'/_conv_stem/kernel$',
        'block': r'/_blocks/(\d+)/',
        'se': r'/_se/',
        'match': r'^resample_layers/0/conv2d/kernel$',
        'match_norm': r'^resample_layers/0/bn/gamma$',
        'cell': r'^fpn_cells/cells/(\d+)/',
        'node': r'^fpn_cells/cells/0/fnodes/(\d+)/',
        'node_bias': r'^fpn_cells/cells/0/fnodes/0/op_after_combine/conv_op/bias$',
        'fusion': r'^fpn_cells/cells/0/fnodes/0/WSM$',
        'repeat': r'^class_net/conv_ops/(\d+)/',
        'level': r'^class_net/bns/0/(\d+)/',
        'depthwise': r'^box_net/boxes/depthwise_kernel$',
        'class_bias': r'^class_net/classes/bias$',
        'box_bias': r'^box_net/boxes/bias$',
    },
    kernel_axes=(2, 3),
    fusion_rank=0,
    aspects='sqrt2',
)
