"""The costs beside the paper's: within 5 %, or within the tolerance that the docs explain."""

from dataclasses import replace
from functools import cache

import pytest

from effdet_plugin.ablation import ablation_configs, cost_table, neck_ratios
from effdet_plugin.ablation.latency import Latency
from effdet_plugin.costs import PAPER, CostRow, count_rows, to_markdown
from support import REPOSITORY

# docs/ablation.md: the paper's B3 + FPN has more than the head and FPN that its first row has.
EXPLAINED = {('table4_b3_fpn', 'parameters'): 0.06, ('table4_b3_fpn', 'multiply_adds'): 0.08}


@cache
def rows() -> dict[str, CostRow]:
    return {row.name: row for row in count_rows(ablation_configs(REPOSITORY))}


@pytest.mark.parametrize('name', [name for name in PAPER if PAPER[name].parameters])
@pytest.mark.parametrize('key', ['parameters', 'multiply_adds'])
def test_table4__is_the_papers(name: str, key: str) -> None:
    tolerance = EXPLAINED.get((name, key), 0.05)
    assert getattr(rows()[name].costs, key) == pytest.approx(
        getattr(PAPER[name], key), rel=tolerance
    )


@pytest.mark.parametrize('name', [name for name in PAPER if PAPER[name].parameters_ratio])
@pytest.mark.parametrize(('index', 'key'), [(0, 'parameters_ratio'), (1, 'multiply_adds_ratio')])
def test_table5__has_the_papers_ratios(name: str, index: int, key: str) -> None:
    ratio = neck_ratios(rows()[name], rows().values())[index]
    assert ratio == pytest.approx(getattr(PAPER[name], key), rel=0.05)


def test_table5__repeated_fpn_costs_exactly_what_fpn_and_panet_cost() -> None:
    fpn, panet = rows()['table5_fpn'].costs, rows()['table5_fpn_panet'].costs
    assert fpn.parameters == panet.parameters
    assert fpn.multiply_adds == panet.multiply_adds


def test_ratios__need_the_baseline_among_the_rows() -> None:
    row = rows()['table5_bifpn']
    assert neck_ratios(row, [row]) == (None, None)


def test_cost_table__columns_without_a_figure_are_left_out() -> None:
    own = replace(rows()['table4_b3_bifpn'], name='own')
    assert cost_table([own]) == [
        ['config', 'size', 'parameters', 'multiply-adds'],
        ['own', '896x896', '11.81M', '24.01G'],
    ]
    assert cost_table([own], {'own': Latency(10.0, 1.0)})[0][4:] == ['ms']
    assert cost_table([])[0][:2] == ['config', 'size']
    # One row that has figures is enough.
    header, line, _ = cost_table([own, rows()['table4_b3_bifpn']])
    assert header[3] == 'paper'
    assert line[3] == '-'


def test_cost_table__latency_and_speed_up_where_there_is_one() -> None:
    own = [rows()['table6_fast'], rows()['table6_softmax'], rows()['table4_b3_fpn']]
    times = {'table6_fast': Latency(10.0, 1.0), 'table6_softmax': Latency(12.5, 2.0)}
    lines = cost_table(own, times)
    assert lines[1][-3:] == ['10.0 (1.0)', '1.25', '1.28']
    assert lines[2][-3:] == ['12.5 (2.0)', '1.00', '1.00']
    assert lines[3][-3:] == ['-', '-', '-']
    assert len(cost_table(own)[0]) == len(lines[0]) - 3
    assert to_markdown(lines).splitlines()[1].count('--:') == len(lines[0]) - 1
