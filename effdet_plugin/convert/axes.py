"""What the templates of key maps run over: blocks, nodes, levels and so on of one network."""

from effdet_plugin.convert.architecture import Structure, blocks, matched_inputs, node_inputs

Values = dict[str, int | str]


Axis = list[Values]


def network_axes(structure: Structure) -> dict[str, Axis]:
    """Values of the templates' placeholders, by axis."""
    network = structure.network
    levels = range(network.num_levels)
    result: dict[str, Axis] = {
        'once': [{}],
        'nodes': _nodes(structure),
        'resamples': _resamples(structure),
        'repeats': [{'repeat': repeat} for repeat in range(network.num_repeats)],
        'norms': [
            {'repeat': repeat, 'level': level, 'pyramid_level': level + 3}
            for repeat in range(network.num_repeats)
            for level in levels
        ],
        'wide_blocks': _blocks(network.backbone, is_wide=True),
        'narrow_blocks': _blocks(network.backbone, is_wide=False),
    }
    root: Values = {'root': f'efficientnet-{network.backbone}'}
    return {axis: [{**root, **values} for values in items] for axis, items in result.items()}


def _blocks(backbone: str, is_wide: bool) -> Axis:
    return [
        {'block': block.number, 'stage': block.stage, 'index': block.index}
        for block in blocks(backbone)
        if (block.expansion > 1) == is_wide
    ]


def _nodes(structure: Structure) -> Axis:
    num_levels = structure.network.num_levels
    return [
        {
            'cell': cell,
            'node': node,
            'maps': num_levels + node,
            'num_inputs': len(inputs),
        }
        for cell in range(structure.network.num_cells)
        for node, inputs in enumerate(node_inputs(structure))
    ]


def _resamples(structure: Structure) -> Axis:
    matched = matched_inputs(structure)
    return [
        {
            'node': node,
            'position': position,
            'map': map_id,
            'maps': structure.network.num_levels + node,
        }
        for node, inputs in enumerate(node_inputs(structure))
        for position, map_id in enumerate(inputs)
        if map_id in matched
    ]
