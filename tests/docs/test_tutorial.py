"""The tutorial runs to its last cell, on fewer images; its outputs are there and small."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from support import REPOSITORY

NOTEBOOK = REPOSITORY / 'docs' / 'tutorial.ipynb'
SHORT = {'240, 48, 10, 256': '8, 4, 1, 64', 'seed=0)': "seed=0, batch_size=4, freeze='backbone')"}
NO_EXPORT = {"model.export('pt2', 'best.pt2', nms='hard', score_thr=0.05)": 'Path(best)'}
MOST_BYTES = 300_000


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding='utf-8'))['cells']
    return found


def said(cell: dict[str, Any]) -> str:
    return ''.join(''.join(output.get('text', '')) for output in cell['outputs'])


def run(notebook: list[dict[str, Any]], changes: dict[str, str]) -> list[dict[str, Any]]:
    """Run it with some texts of its cells replaced; return its code cells with their outputs."""
    sources = ''.join(''.join(cell['source']) for cell in notebook)
    assert all(sources.count(text) == 1 for text in changes)
    runpy.run_path(str(REPOSITORY / 'docs' / 'run_notebook.py'))['run'](notebook, changes)
    return [cell for cell in notebook if cell['cell_type'] == 'code']


@pytest.mark.slow
@pytest.mark.parametrize('exports', [False, pytest.param(True, marks=pytest.mark.export)])
def test_tutorial__runs(exports: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = run(cells(), SHORT if exports else SHORT | NO_EXPORT)
    assert list(map(images, code)) == list(map(images, committed()))
    assert "('ring', 'triangle', 'cross', 'star')" in said(code[0])
    assert 'mAP_50' in said(code[4])
    assert 'in 8 frames' in said(code[6])
    assert ('best.pt2' in said(code[7])) == exports
    assert '(1, 256, 1, 1)' in said(code[8])


def images(cell: dict[str, Any]) -> int:
    return sum('data' in output for output in cell['outputs'])


def committed() -> list[dict[str, Any]]:
    return [cell for cell in cells() if cell['cell_type'] == 'code']


def test_tutorial__has_outputs_of_a_run() -> None:
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    assert all(cell['outputs'] for cell in committed())
    assert all(
        str(Path.home()) not in said(cell) and '/tmp' not in said(cell) for cell in committed()
    )
    (metrics,) = [said(cell) for cell in committed() if "'mAP_50'" in said(cell)]
    assert 0.5 < float(metrics.partition("'mAP_50': ")[2].split(',')[0]) <= 1  # it has learned
