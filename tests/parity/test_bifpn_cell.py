"""Pyramid cells alone: every node of the first cell, and the levels after the last."""

import json
from typing import Any

import pytest
import torch
from ladder import difference, nchw, nhwc, worst
from oracle_networks import recipe_state
from torch import Tensor

import support
from effdet_plugin.convert.networks import Structure
from effdet_plugin.models import BiFPN
from effdet_plugin.models.necks.topology import build_topology, output_ids

LIMIT = 1e-5
ARRAYS = support.load_oracle('bifpn_cell')
TAGS = sorted(name.removesuffix('_shapes') for name in ARRAYS if name.endswith('_shapes'))

# What differs from D0's cell, in the neck and in what the converter has to know.
NECKS: dict[str, dict[str, Any]] = {
    'two': dict(num_cells=2),
    'lite': dict(fusion='sum', act='relu6'),
    'attn': dict(fusion='attn'),
    'channel': dict(fusion='channel_fast_attn'),
    'qufpn': dict(topology='qufpn'),
    'convbnact': dict(conv_bn_act_pattern=True),
    'notsep': dict(separable=False),
    'l38': dict(num_outs=6),
}
STRUCTURES: dict[str, dict[str, Any]] = {
    'lite': dict(fusion='sum'),
    'channel': dict(fusion='channel'),
    'qufpn': dict(topology='qufpn'),
    'convbnact': dict(node_bias=False),
    'notsep': dict(separable=False),
}


def build(tag: str) -> BiFPN:
    settings = {'num_cells': 1, 'num_outs': 5, **NECKS.get(tag, {})}
    neck = BiFPN([40, 112, 320], out_channels=64, **settings)
    # Of the structure only the wiring counts here: D7x has six levels.
    model = 'd7x' if settings['num_outs'] == 6 else 'd0'
    structure = Structure(model, **STRUCTURES.get(tag, {}))
    shapes = {f'neck.{name}': tuple(value.shape) for name, value in neck.state_dict().items()}
    state = recipe_state('lite0' if tag == 'lite' else 'd0', structure, shapes)
    neck.load_state_dict({name.removeprefix('neck.'): value for name, value in state.items()})
    return neck.eval()


def inputs(tag: str) -> list[Tensor]:
    make = support.recipe().normalish
    shapes = ARRAYS[f'{tag}_shapes'].tolist()
    return [nchw(make(f'cell:{tag}:{i}', tuple(shape))) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize('tag', TAGS)
def test_cell__every_node_and_output(tag: str) -> None:
    neck, maps = build(tag), inputs(tag)
    with torch.no_grad():
        first: Any = neck.cells[0]
        nodes = first.run_nodes(maps)[len(maps) :]
        for cell in neck.cells.children():
            maps = cell(maps)
    own = {f'{tag}_node{i}': x for i, x in enumerate(nodes)}
    own.update({f'{tag}_out{i}': x for i, x in enumerate(maps)})
    stored = {
        n for n in support.oracle_io().names(ARRAYS) if n.startswith((f'{tag}_n', f'{tag}_o'))
    }
    assert stored == own.keys()
    found = worst([(name, difference(ARRAYS, name, nhwc(x))) for name, x in own.items()])
    assert found[1] < LIMIT, found


NODE_LISTS = json.loads(support.oracle_file('fpn_topology.json').read_text(encoding='utf-8'))


@pytest.mark.parametrize('name', sorted(NODE_LISTS))
def test_topology__node_lists(name: str) -> None:
    topology, lowest, highest = name.split('_')
    finest, num_levels = int(lowest), int(highest) - int(lowest) + 1
    nodes, expected = build_topology(topology, num_levels), NODE_LISTS[name]
    assert [(node.level + finest, list(node.inputs)) for node in nodes] == [
        (node['feat_level'], node['inputs_offsets']) for node in expected['nodes']
    ]
    outputs = {str(i + finest): id_ for i, id_ in enumerate(output_ids(nodes, num_levels))}
    assert outputs == expected['output_node_of_level']
