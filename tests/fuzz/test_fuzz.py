"""Mutants of whatever is read: read, or refused in a line, in bounded time and memory.

``EFFDET_FUZZ`` is how many of each kind; ``run_fuzz.py`` prints a table for many.
"""

import os
from pathlib import Path

import pytest
from fuzz_kinds import KINDS
from measure import try_mutant

COUNT = int(os.environ.get('EFFDET_FUZZ', '8'))  # 200 in all


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', KINDS)
def test_mutants(kind: str, tmp_path: Path) -> None:
    if kind == 'h5':
        pytest.importorskip('h5py')
    trials = [try_mutant(kind, KINDS[kind], number, tmp_path) for number in range(COUNT)]
    faults = [trial.fault for trial in trials if trial.fault]
    assert not faults, '\n'.join(faults)
    assert len(trials) == COUNT
