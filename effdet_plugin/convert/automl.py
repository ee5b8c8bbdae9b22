"""Key map of google/automl's checkpoints by variable name: TF1, TF2, Keras ``.h5``, ``.npz``."""

from effdet_plugin.convert.rules import Dialect, Entry, Leaf

_BLOCK = 'backbone.model.blocks.{stage}.{index}'
_TF_BLOCK = '{root}/blocks_{block}'
_NODE = 'neck.cells.{cell}.nodes.{node}'
_TF_NODE = 'fpn_cells/cell_{cell}/fnode{node}'
_RESAMPLE = 'neck.cells.0.nodes.{node}.resamples.{position}'
_TF_RESAMPLE = 'fpn_cells/cell_0/fnode{node}/resample_{position}_{map}_{maps}'
_NORM = 'tpu_batch_normalization'
_CLS, _BOX = 'bbox_head.cls_tower', 'bbox_head.box_tower'

_CONV = (Leaf('/kernel', '.weight', ('kernel',)),)
_BIAS = (Leaf('/bias', '.bias'),)
_POINTWISE = (Leaf('/pointwise_kernel', '.pointwise.weight', ('kernel',)),)
_DEPTHWISE = (Leaf('/depthwise_kernel', '.depthwise.weight', ('depthwise',)),)

LEAVES = {
    'conv': _CONV,
    'plain': _CONV + _BIAS,
    'depthwise': (Leaf('/depthwise_kernel', '.weight', ('depthwise',)),),
    'separable': (*_DEPTHWISE, *_POINTWISE, Leaf('/bias', '.pointwise.bias')),
    'norm': (
        Leaf('/gamma', '.weight'),
        Leaf('/beta', '.bias'),
        Leaf('/moving_mean', '.running_mean'),
        Leaf('/moving_variance', '.running_var'),
    ),
    'fusion': (Leaf('', ''),),
    'box_plain': (
        Leaf('/kernel', '.weight', ('kernel', 'boxes')),
        Leaf('/bias', '.bias', ('boxes',)),
    ),
    'box_separable': (
        *_DEPTHWISE,
        Leaf('/pointwise_kernel', '.pointwise.weight', ('kernel', 'boxes')),
        Leaf('/bias', '.pointwise.bias', ('boxes',)),
    ),
}

TABLE = (
    Entry('{root}/stem/conv2d', 'backbone.model.conv_stem', 'conv'),
    Entry(f'{{root}}/stem/{_NORM}', 'backbone.model.bn1', 'norm'),
    Entry(f'{_TF_BLOCK}/conv2d', f'{_BLOCK}.conv_pw', 'conv', 'wide_blocks'),
    Entry(f'{_TF_BLOCK}/{_NORM}', f'{_BLOCK}.bn1', 'norm', 'wide_blocks'),
    Entry(f'{_TF_BLOCK}/depthwise_conv2d', f'{_BLOCK}.conv_dw', 'depthwise', 'wide_blocks'),
    Entry(f'{_TF_BLOCK}/{_NORM}_1', f'{_BLOCK}.bn2', 'norm', 'wide_blocks'),
    Entry(f'{_TF_BLOCK}/se/conv2d', f'{_BLOCK}.se.conv_reduce', 'plain', 'wide_blocks'),
    Entry(f'{_TF_BLOCK}/se/conv2d_1', f'{_BLOCK}.se.conv_expand', 'plain', 'wide_blocks'),
    Entry(f'{_TF_BLOCK}/conv2d_1', f'{_BLOCK}.conv_pwl', 'conv', 'wide_blocks'),
    Entry(f'{_TF_BLOCK}/{_NORM}_2', f'{_BLOCK}.bn3', 'norm', 'wide_blocks'),
    # The blocks of the first stage do not expand.
    Entry(f'{_TF_BLOCK}/depthwise_conv2d', f'{_BLOCK}.conv_dw', 'depthwise', 'narrow_blocks'),
    Entry(f'{_TF_BLOCK}/{_NORM}', f'{_BLOCK}.bn1', 'norm', 'narrow_blocks'),
    Entry(f'{_TF_BLOCK}/se/conv2d', f'{_BLOCK}.se.conv_reduce', 'plain', 'narrow_blocks'),
    Entry(f'{_TF_BLOCK}/se/conv2d_1', f'{_BLOCK}.se.conv_expand', 'plain', 'narrow_blocks'),
    Entry(f'{_TF_BLOCK}/conv2d', f'{_BLOCK}.conv_pw', 'conv', 'narrow_blocks'),
    Entry(f'{_TF_BLOCK}/{_NORM}_1', f'{_BLOCK}.bn2', 'norm', 'narrow_blocks'),
    Entry('resample_p6/conv2d', 'neck.extra_levels.0.conv', 'plain'),
    Entry('resample_p6/bn', 'neck.extra_levels.0.bn', 'norm'),
    Entry(
        f'{_TF_NODE}/WSM{{suffix}}', f'{_NODE}.fusion.weights', 'fusion', 'nodes', per_input=True
    ),
    Entry(f'{_TF_NODE}/op_after_combine{{maps}}/conv', f'{_NODE}.conv', 'mixing', 'nodes'),
    Entry(f'{_TF_NODE}/op_after_combine{{maps}}/bn', f'{_NODE}.bn', 'norm', 'nodes'),
    Entry(f'{_TF_RESAMPLE}/conv2d', f'{_RESAMPLE}.conv', 'plain', 'resamples'),
    Entry(f'{_TF_RESAMPLE}/bn', f'{_RESAMPLE}.bn', 'norm', 'resamples'),
    Entry('class_net/class-{repeat}', f'{_CLS}.convs.{{repeat}}', 'mixing', 'repeats'),
    Entry(
        'class_net/class-{repeat}-bn-{pyramid_level}',
        f'{_CLS}.norms.{{repeat}}.{{level}}',
        'norm',
        'norms',
    ),
    Entry('class_net/class-predict', f'{_CLS}.predict', 'mixing'),
    Entry('box_net/box-{repeat}', f'{_BOX}.convs.{{repeat}}', 'mixing', 'repeats'),
    Entry(
        'box_net/box-{repeat}-bn-{pyramid_level}',
        f'{_BOX}.norms.{{repeat}}.{{level}}',
        'norm',
        'norms',
    ),
    Entry('box_net/box-predict', f'{_BOX}.predict', 'box_mixing'),
)

# Names are told from a model's name in front of them by these beginnings.
ROOTS = r'efficientnet-[^/]+|resample_p\d+|fpn_cells|class_net|box_net'

DIALECT = Dialect(
    name='google/automl',
    table=TABLE,
    leaves=LEAVES,
    aliases=(
        (r':0$', ''),
        (rf'^(?:.*?/)?(?=(?:{ROOTS})/)', ''),
        # Keras numbers the stem's layers in a process that built several models.
        (r'/stem(?:_\d+)?/conv2d(?:_\d+)?/', '/stem/conv2d/'),
        (r'/stem(?:_\d+)?/(?:\w*_)?batch_normalization(?:_\d+)?/', f'/stem/{_NORM}/'),
    ),
    left_out=(
        (r'(^|/)(global_step|save_counter)$', 'step counter'),
        (r'/(Momentum|momentum|RMSProp|Adam|Adagrad|rms|mg|m|v|vhat)(_\d+)?$', 'optimizer slot'),
        (r'^(optimizer|optimizer_weights|SGD|Adam|training)/', 'optimizer'),
        (r'^(beta[12]_power|learning_rate|.*loss_scale\w*)$', 'optimizer'),
        (r'(^|/)segmentation_head/', 'segmentation head, not a part of the detector'),
    ),
    fills=((r'\.num_batches_tracked$', 'counter that TensorFlow does not have'),),
    average='/ExponentialMovingAverage',
    probes={
        'stem': r'/stem/conv2d/kernel$',
        'block': r'/blocks_(\d+)/',
        'se': r'/se/',
        'match': r'^resample_p6/conv2d/kernel$',
        'match_norm': r'^resample_p6/bn/gamma$',
        'cell': r'^fpn_cells/cell_(\d+)/',
        'node': r'^fpn_cells/cell_0/fnode(\d+)/',
        'node_bias': r'^fpn_cells/cell_0/fnode0/op_after_combine\d+/conv/bias$',
        'fusion': r'^fpn_cells/cell_0/fnode0/WSM$',
        'repeat': r'^class_net/class-(\d+)/',
        'level': r'^class_net/class-0-bn-(\d+)/',
        'depthwise': r'^box_net/box-predict/depthwise_kernel$',
        'class_bias': r'^class_net/class-predict/bias$',
        'box_bias': r'^box_net/box-predict/bias$',
    },
    kernel_axes=(2, 3),
    fusion_rank=0,
    aspects='sqrt2',
)
