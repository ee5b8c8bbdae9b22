"""Turns, parts, percentiles and speedups, on calls whose times are known."""

import platform
import time

import numpy as np
import pytest
import torch

from effdet_plugin.benchmark.forms import difference
from effdet_plugin.benchmark.machine import describe, in_words
from effdet_plugin.benchmark.report import Measure, Report
from effdet_plugin.benchmark.settings import Settings
from effdet_plugin.benchmark.timing import TOTAL, Figures, Stopwatch, in_turns
from effdet_plugin.errors import ConfigError

CPU = torch.device('cpu')


def test_calls_take_turns_and_warm_up_is_not_counted() -> None:
    order: list[str] = []
    figures = in_turns(
        {'a': lambda watch: order.append('a'), 'b': lambda watch: order.append('b')},
        rounds=3,
        device=CPU,
        warm_up=1,
    )
    assert ''.join(order) == 'abababab'
    assert {name: len(parts[TOTAL].wall_ms) for name, parts in figures.items()} == {'a': 3, 'b': 3}


def test_parts_add_up_and_sleep_costs_no_cpu_time() -> None:
    def call(watch: Stopwatch) -> None:
        time.sleep(0.02)
        watch.lap('sleep')
        watch.lap('nothing')

    parts = in_turns({'one': call}, rounds=2, device=CPU)['one']
    assert list(parts) == ['sleep', 'nothing', TOTAL]
    assert min(parts['sleep'].wall_ms) >= 19
    assert max(parts['sleep'].cpu_ms) < 15
    assert parts[TOTAL].wall_ms[0] >= parts['sleep'].wall_ms[0] + parts['nothing'].wall_ms[0]


def test_figures_are_of_one_image() -> None:
    plain = Figures([10.0, 20.0, 30.0, 40.0, 90.0], [8.0, 16.0, 24.0, 32.0, 40.0]).to_dict(per=2)
    assert plain == {'median_ms': 15.0, 'p10_ms': 7.0, 'p90_ms': 35.0, 'cpu_ms': 12.0}


@pytest.mark.parametrize(('threads', 'speedup'), [(1, 2.0), (2, 4.0)])
def test_speedup_is_theirs_over_ours_in_the_fair_time(threads: int, speedup: float) -> None:
    report = Report(
        {'threads': threads},
        [
            Measure('theirs', Figures([40.0], [20.0], peak_mb=8.0)),
            Measure('ours', Figures([10.0], [10.0], peak_mb=2.0), against='theirs', note='equal'),
        ],
    )
    plain = report.to_dict()
    assert plain['ours']['speedup'] == speedup
    assert plain['ours']['memory_ratio'] == 0.25
    assert 'speedup' not in plain['theirs']
    assert report.table()[2] == ['ours', '10.0', '10.0', '10.0', '10.0', f'{speedup:.2f}', 'equal']


def test_machine_has_no_host_name() -> None:
    machine = describe(CPU, 1)
    assert machine['torch'] == torch.__version__
    assert platform.node() not in in_words(machine)


def test_differences_of_raw_outputs_and_of_detections() -> None:
    raw = {'logits': np.array([[1.0, -4.0]]), 'deltas': np.zeros((1, 2))}
    assert difference(raw | {'logits': np.array([[1.0, -3.0]])}, raw, 'raw') == 0.25
    assert difference(raw | {'logits': np.array([[1.0, np.nan]])}, raw, 'raw') == np.inf
    rows = {
        'boxes': np.array([[[0.0, 0, 9, 9], [5, 5, 8, 8], [0, 0, 0, 0]]]),
        'scores': np.array([[0.9, 0.5, 0.0]]),
        'labels': np.array([[1, 2, -1]]),
        'num': np.array([2]),
    }
    assert difference(rows, rows, 'postprocess') == 0
    other_label = rows | {'labels': np.array([[1, 3, -1]])}
    assert difference(other_label, rows, 'postprocess') == 0.5
    one_missing = rows | {'num': np.array([1])}
    assert difference(one_missing, rows, 'postprocess') == 0.5


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        ({'models': []}, 'MODEL'),
        ({'batches': [0]}, '--batch'),
        ({'rounds': 0}, '--rounds'),
        ({'threads': 0}, '--threads'),
        ({'score_thr': 25.0}, '--score-thr'),
        ({'forms': ('fastest',)}, 'fastest'),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        Settings(**{'models': ['none'], **change}).check()  # type: ignore[arg-type]
