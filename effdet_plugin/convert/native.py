"""Our own checkpoints as a source, so that they can be turned into the other formats."""

from dataclasses import replace

from effdet_plugin.convert import effdet
from effdet_plugin.convert.rules import Dialect, Leaf

DIALECT = Dialect(
    name='effdet_plugin',
    table=tuple(replace(entry, source=entry.target) for entry in effdet.TABLE),
    leaves={
        kind: tuple(Leaf(leaf.target, leaf.target) for leaf in leaves)
        for kind, leaves in effdet.LEAVES.items()
    },
    aliases=((r'^module\.', ''),),
    left_out=(
        (r'^data_preprocessor\.', 'pixel statistics, which the config holds'),
        (r'^steps$', 'counter of the moving average'),
    ),
    fills=((r'\.num_batches_tracked$', 'counter that this file does not have'),),
    probes={
        'stem': r'^backbone\.model\.conv_stem\.weight$',
        'block': r'^backbone\.model\.blocks\.(\d+\.\d+)\.',
        'se': r'\.se\.',
        'match': r'^neck\.extra_levels\.0\.conv\.weight$',
        'match_norm': r'^neck\.extra_levels\.0\.bn\.weight$',
        'cell': r'^neck\.cells\.(\d+)\.',
        'node': r'^neck\.cells\.0\.nodes\.(\d+)\.',
        'node_bias': r'^neck\.cells\.0\.nodes\.0\.conv\.(?:pointwise\.)?bias$',
        'fusion': r'^neck\.cells\.0\.nodes\.0\.fusion\.weights$',
        'repeat': r'^bbox_head\.cls_tower\.convs\.(\d+)\.',
        'level': r'^bbox_head\.cls_tower\.norms\.0\.(\d+)\.',
        'depthwise': r'^bbox_head\.box_tower\.predict\.depthwise\.weight$',
        'class_bias': r'^bbox_head\.cls_tower\.predict\.(?:pointwise\.)?bias$',
        'box_bias': r'^bbox_head\.box_tower\.predict\.(?:pointwise\.)?bias$',
    },
    kernel_axes=(1, 0),
    fusion_rank=1,
    aspects='sqrt2',
)
