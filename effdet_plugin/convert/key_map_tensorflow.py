"""Key maps of the reference's checkpoints, by variable name and by object path.

Source of the names: google/automl, ``efficientdet/efficientdet_arch.py`` and
``efficientdet/tf2/efficientdet_keras.py``. :data:`VARIABLES` serves TF1 checkpoints, Keras ``.h5``,
``.npz`` and TF2 checkpoints that tell the variables' names; :data:`OBJECTS` serves TF2 checkpoints
that tell only the path of attributes to each variable.
"""

from effdet_plugin.convert.key_map import KeyMap, Layer, Param

_BLOCK = 'backbone.model.blocks.{stage}.{index}'
_NODE = 'neck.cells.{cell}.nodes.{node}'
_RESAMPLE = f'{_NODE}.resamples.{{position}}'  # in the first cell only
_EXTRA = 'neck.extra_levels.{extra}'
_CLS, _BOX = 'bbox_head.cls_tower', 'bbox_head.box_tower'

_DEPTHWISE = Param('/depthwise_kernel', '.depthwise.weight', ('depthwise',))

PARAMS = {
    'conv': (Param('/kernel', '.weight', ('kernel',)), Param('/bias', '.bias')),
    'depthwise': (Param('/depthwise_kernel', '.weight', ('depthwise',)),),
    'norm': (
        Param('/gamma', '.weight'),
        Param('/beta', '.bias'),
        Param('/moving_mean', '.running_mean'),
        Param('/moving_variance', '.running_var'),
    ),
    'fusion': (Param('', ''),),
    # Separable or not: our names tell which.
    'conv3x3': (
        _DEPTHWISE,
        Param('/pointwise_kernel', '.pointwise.weight', ('kernel',)),
        Param('/bias', '.pointwise.bias'),
        Param('/kernel', '.weight', ('kernel',)),
        Param('/bias', '.bias'),
    ),
    'box_conv3x3': (
        _DEPTHWISE,
        Param('/pointwise_kernel', '.pointwise.weight', ('kernel', 'boxes')),
        Param('/bias', '.pointwise.bias', ('boxes',)),
        Param('/kernel', '.weight', ('kernel', 'boxes')),
        Param('/bias', '.bias', ('boxes',)),
    ),
}

_TF_BLOCK = '{root}/blocks_{block}'
_TF_NODE = 'fpn_cells/cell_{cell}/fnode{node}'
_TF_RESAMPLE = 'fpn_cells/cell_0/fnode{node}/resample_{position}_{map}_{maps}'
_NORM = 'tpu_batch_normalization'

_VARIABLES = (
    Layer('{root}/stem/conv2d', 'backbone.model.conv_stem', 'conv'),
    Layer(f'{{root}}/stem/{_NORM}', 'backbone.model.bn1', 'norm'),
    Layer(f'{_TF_BLOCK}/depthwise_conv2d', f'{_BLOCK}.conv_dw', 'depthwise'),
    Layer(f'{_TF_BLOCK}/se/conv2d', f'{_BLOCK}.se.conv_reduce', 'conv'),
    Layer(f'{_TF_BLOCK}/se/conv2d_1', f'{_BLOCK}.se.conv_expand', 'conv'),
    Layer(f'{_TF_BLOCK}/conv2d', f'{_BLOCK}.conv_pw', 'conv', when=True),
    Layer(f'{_TF_BLOCK}/{_NORM}', f'{_BLOCK}.bn1', 'norm', when=True),
    Layer(f'{_TF_BLOCK}/{_NORM}_1', f'{_BLOCK}.bn2', 'norm', when=True),
    Layer(f'{_TF_BLOCK}/conv2d_1', f'{_BLOCK}.conv_pwl', 'conv', when=True),
    Layer(f'{_TF_BLOCK}/{_NORM}_2', f'{_BLOCK}.bn3', 'norm', when=True),
    # The blocks of the first stage: their only 1x1 convolution projects.
    Layer(f'{_TF_BLOCK}/{_NORM}', f'{_BLOCK}.bn1', 'norm', when=False),
    Layer(f'{_TF_BLOCK}/conv2d', f'{_BLOCK}.conv_pw', 'conv', when=False),
    Layer(f'{_TF_BLOCK}/{_NORM}_1', f'{_BLOCK}.bn2', 'norm', when=False),
    Layer('resample_p6/conv2d', f'{_EXTRA}.conv', 'conv'),
    Layer('resample_p6/bn', f'{_EXTRA}.bn', 'norm'),
    Layer(f'{_TF_NODE}/WSM{{suffix}}', f'{_NODE}.fusion.weights', 'fusion'),
    Layer(f'{_TF_NODE}/op_after_combine{{maps}}/conv', f'{_NODE}.conv', 'conv3x3'),
    Layer(f'{_TF_NODE}/op_after_combine{{maps}}/bn', f'{_NODE}.bn', 'norm'),
    Layer(f'{_TF_RESAMPLE}/conv2d', f'{_RESAMPLE}.conv', 'conv'),
    Layer(f'{_TF_RESAMPLE}/bn', f'{_RESAMPLE}.bn', 'norm'),
    Layer('class_net/class-{repeat}', f'{_CLS}.convs.{{repeat}}', 'conv3x3'),
    Layer(
        'class_net/class-{repeat}-bn-{pyramid_level}', f'{_CLS}.norms.{{repeat}}.{{level}}', 'norm'
    ),
    Layer('class_net/class-predict', f'{_CLS}.predict', 'conv3x3'),
    Layer('box_net/box-{repeat}', f'{_BOX}.convs.{{repeat}}', 'conv3x3'),
    Layer('box_net/box-{repeat}-bn-{pyramid_level}', f'{_BOX}.norms.{{repeat}}.{{level}}', 'norm'),
    Layer('box_net/box-predict', f'{_BOX}.predict', 'box_conv3x3'),
)

_OBJECT_BLOCK = 'backbone/_blocks/{block}'
_OBJECT_NODE = 'fpn_cells/cells/{cell}/fnodes/{node}'
_OBJECT_RESAMPLE = 'fpn_cells/cells/0/fnodes/{node}/resample_layers/{position}'

_OBJECTS = (
    Layer('backbone/_stem/_conv_stem', 'backbone.model.conv_stem', 'conv'),
    Layer('backbone/_stem/_bn', 'backbone.model.bn1', 'norm'),
    Layer(f'{_OBJECT_BLOCK}/_depthwise_conv', f'{_BLOCK}.conv_dw', 'depthwise'),
    Layer(f'{_OBJECT_BLOCK}/_se/_se_reduce', f'{_BLOCK}.se.conv_reduce', 'conv'),
    Layer(f'{_OBJECT_BLOCK}/_se/_se_expand', f'{_BLOCK}.se.conv_expand', 'conv'),
    Layer(f'{_OBJECT_BLOCK}/_expand_conv', f'{_BLOCK}.conv_pw', 'conv', when=True),
    Layer(f'{_OBJECT_BLOCK}/_bn0', f'{_BLOCK}.bn1', 'norm', when=True),
    Layer(f'{_OBJECT_BLOCK}/_bn1', f'{_BLOCK}.bn2', 'norm', when=True),
    Layer(f'{_OBJECT_BLOCK}/_project_conv', f'{_BLOCK}.conv_pwl', 'conv', when=True),
    Layer(f'{_OBJECT_BLOCK}/_bn2', f'{_BLOCK}.bn3', 'norm', when=True),
    # Without an expansion, _bn1 is still the depthwise one and _bn2 the projection's.
    Layer(f'{_OBJECT_BLOCK}/_bn1', f'{_BLOCK}.bn1', 'norm', when=False),
    Layer(f'{_OBJECT_BLOCK}/_project_conv', f'{_BLOCK}.conv_pw', 'conv', when=False),
    Layer(f'{_OBJECT_BLOCK}/_bn2', f'{_BLOCK}.bn2', 'norm', when=False),
    Layer('resample_layers/0/conv2d', f'{_EXTRA}.conv', 'conv'),
    Layer('resample_layers/0/bn', f'{_EXTRA}.bn', 'norm'),
    Layer(f'{_OBJECT_NODE}/WSM{{suffix}}', f'{_NODE}.fusion.weights', 'fusion'),
    Layer(f'{_OBJECT_NODE}/op_after_combine/conv_op', f'{_NODE}.conv', 'conv3x3'),
    Layer(f'{_OBJECT_NODE}/op_after_combine/bn', f'{_NODE}.bn', 'norm'),
    Layer(f'{_OBJECT_RESAMPLE}/conv2d', f'{_RESAMPLE}.conv', 'conv'),
    Layer(f'{_OBJECT_RESAMPLE}/bn', f'{_RESAMPLE}.bn', 'norm'),
    Layer('class_net/conv_ops/{repeat}', f'{_CLS}.convs.{{repeat}}', 'conv3x3'),
    Layer('class_net/bns/{repeat}/{level}', f'{_CLS}.norms.{{repeat}}.{{level}}', 'norm'),
    Layer('class_net/classes', f'{_CLS}.predict', 'conv3x3'),
    Layer('box_net/conv_ops/{repeat}', f'{_BOX}.convs.{{repeat}}', 'conv3x3'),
    Layer('box_net/bns/{repeat}/{level}', f'{_BOX}.norms.{{repeat}}.{{level}}', 'norm'),
    Layer('box_net/boxes', f'{_BOX}.predict', 'box_conv3x3'),
)

# Where the network's own part of a name begins, behind the name of a model.
VARIABLE_ROOTS = r'efficientnet-[^/]+|resample_p\d+|fpn_cells|class_net|box_net'
OBJECT_ROOTS = r'backbone|resample_layers|fpn_cells|class_net|box_net'
AVERAGE = '/ExponentialMovingAverage'
_LEFT_OUT = (
    (r'(^|/)(global_step|save_counter)$', 'step counter'),
    (r'/(Momentum|momentum|RMSProp|Adam|Adagrad|rms|mg|m|v|vhat)(_\d+)?$', 'optimizer slot'),
    (r'^(optimizer|optimizer_weights|SGD|Adam|training)/', 'optimizer'),
    (r'^(beta[12]_power|learning_rate|.*loss_scale\w*)$', 'optimizer'),
    (r'(^|/)segmentation_head/', 'segmentation head, not a part of the detector'),
)
_DEFAULTS = ((r'\.num_batches_tracked$', 'counter that TensorFlow does not have'),)

VARIABLES = KeyMap(
    name='google/automl',
    layers=_VARIABLES,
    params=PARAMS,
    aspect_ratios='sqrt2',
    aliases=(
        (r':0$', ''),
        (rf'^(?:.*?/)?(?=(?:{VARIABLE_ROOTS})/)', ''),
        # Keras numbers the stem's layers in a process that built several models.
        (r'/stem(?:_\d+)?/conv2d(?:_\d+)?/', '/stem/conv2d/'),
        (r'/stem(?:_\d+)?/(?:\w*_)?batch_normalization(?:_\d+)?/', f'/stem/{_NORM}/'),
    ),
    left_out=_LEFT_OUT,
    defaults=_DEFAULTS,
    average=AVERAGE,
)

OBJECTS = KeyMap(
    name='google/automl (object checkpoint)',
    layers=_OBJECTS,
    params=PARAMS,
    aspect_ratios='sqrt2',
    aliases=(
        (rf'^(?:.*?/)?(?=(?:{OBJECT_ROOTS})/)', ''),
        (r'^backbone/_stem/_bn0/', 'backbone/_stem/_bn/'),
        # Older versions name a level's BN, newer ones count them.
        *((rf'/bns/(\d+)/level-{level + 3}/', rf'/bns/\1/{level}/') for level in range(6)),
        # The same weights are also reachable as `vars` of the node.
        (r'/vars/0(/|$)', r'/WSM\1'),
        (r'/vars/(\d+)(/|$)', r'/WSM_\1\2'),
    ),
    left_out=_LEFT_OUT,
    defaults=_DEFAULTS,
    average=AVERAGE,
)
