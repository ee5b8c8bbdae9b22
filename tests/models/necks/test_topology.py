import pytest
from mmengine.config import Config

from effdet_plugin.models.necks.topology import TOPOLOGIES, Node, build_topology, output_ids


def pairs(name: str, levels: int) -> list[tuple[int, tuple[int, ...]]]:
    return [(node.level, node.inputs) for node in build_topology(name, levels)]


def test_bifpn__of_five_levels() -> None:
    assert pairs('bifpn', 5) == [
        (3, (3, 4)),
        (2, (2, 5)),
        (1, (1, 6)),
        (0, (0, 7)),
        (1, (1, 7, 8)),
        (2, (2, 6, 9)),
        (3, (3, 5, 10)),
        (4, (4, 11)),
    ]
    assert output_ids(build_topology('bifpn', 5), 5) == [8, 9, 10, 11, 12]


def test_others__of_three_levels() -> None:
    assert pairs('fpn', 3) == [(2, (2,)), (1, (1, 3)), (0, (0, 4))]
    assert pairs('panet', 3)[3:] == [(0, (5,)), (1, (4, 6)), (2, (3, 7))]
    assert pairs('fully_connected', 3) == [(level, (0, 1, 2)) for level in range(3)]


@pytest.mark.parametrize('levels', range(1, 8))
@pytest.mark.parametrize('name', TOPOLOGIES)
def test_every_topology__has_an_output_for_each_level_and_no_loop(name: str, levels: int) -> None:
    nodes = build_topology(name, levels)
    assert build_topology([(node.level, node.inputs) for node in nodes], levels) == nodes
    outputs = output_ids(nodes, levels)
    assert len(set(outputs)) == levels
    assert all(output >= levels for output in outputs)


def test_own_list__tuples_dicts_and_nodes() -> None:
    expected = [Node(1, (0, 1)), Node(0, (0, 2))]
    assert build_topology([(1, [0, 1]), {'level': 0, 'inputs': [0, 2]}], 2) == expected
    assert build_topology(expected, 2) == expected


def test_own_list__as_a_config_makes_it() -> None:
    cfg = Config(dict(nodes=[(1, [0, 1]), [0, (0, 2)], dict(level=1, inputs=[0, 2])]))
    expected = [Node(1, (0, 1)), Node(0, (0, 2)), Node(1, (0, 2))]
    assert build_topology(cfg.nodes, 2) == expected


@pytest.mark.parametrize(
    ('nodes', 'words'),
    [
        ([(0, [0, 2])], r'node 0.*among the 2 maps'),
        ([(0, [])], 'node 0'),
        ([(2, [0])], r'node 0: .*level 2.* 0 .* 1$'),
        ([(-1, [0])], 'node 0: there is no level -1'),
        ([(0, [0]), (1, 0)], r'^topology node 1: \(1, 0\): write \(level, \[inputs\]\)$'),
        ([(1,)], r'node 0: \(1,\): write'),
        ([(1, [0], 2)], r'node 0: \(1, \[0\], 2\): write'),
        ([(0, ['P3', 'P4'])], r"node 0: \(0, \['P3', 'P4'\]\): write"),
        ([('P3', [0])], r"node 0: \('P3', \[0\]\): write"),
        ([0, 1], 'node 0: 0: write'),
        ([{'level': 0}], r"node 0: \{'level': 0\}: write"),
        ([Node(0, ('P3',))], 'node 0: .*: write'),  # type: ignore[arg-type]
        ([(0, [0, 1])], 'no node for level 1'),
        ('bifpnn', "topology='bifpnn' is unknown; choose one of bifpn"),
    ],
)
def test_own_list__refused(nodes: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_topology(nodes, 2)  # type: ignore[arg-type]
