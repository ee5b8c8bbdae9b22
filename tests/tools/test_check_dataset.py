"""tools/check_dataset.py: exit codes, the page, and files where they were asked for."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from support import REPOSITORY

Tool = Callable[..., int]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """The tool's exit code for some arguments, in an empty folder."""

    def run(*arguments: object) -> int:
        path = REPOSITORY / 'tools' / 'check_dataset.py'
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            runpy.run_path(str(path), run_name='__main__')
        return int(done.value.code or 0)

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(REPOSITORY / 'tools')
    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two images, a box of which reaches out of its image."""
    folder = tmp_path / 'data'
    folder.mkdir()
    rows = ['filename,width,height,class,xmin,ymin,xmax,ymax']
    for name, colour, bottom in (('a', 'red', 30), ('b', 'blue', 90)):
        Image.new('RGB', (64, 48), colour).save(folder / f'{name}.png')
        for left in (5, 15, 25) if name == 'a' else (5,):
            rows.append(f'{name}.png,64,48,cat,{left},5,{left + 30},{bottom}')
    (folder / 'x.csv').write_text('\n'.join(rows), encoding='utf-8')
    return folder


def test_tool__page_json_and_clean_copy(
    tool: Tool, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool(data, '--json', 'r.json', '--fix', 'clean') == 0
    assert 'reaches outside its image' in capsys.readouterr().out
    assert (tmp_path / 'work_dirs' / 'check_dataset' / 'report.html').is_file()
    (finding,) = json.loads((tmp_path / 'r.json').read_text(encoding='utf-8'))['findings']
    assert (finding['kind'], finding['level'], finding['count']) == ('box_clipped', 'fault', 1)
    assert (tmp_path / 'clean' / 'annotations' / 'train.json').is_file()
    assert len(list((tmp_path / 'clean' / 'images').iterdir())) == 2
    assert tool(tmp_path / 'clean', '--strict') == 0


def test_tool__exit_codes(
    tool: Tool, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool(data, '--strict') == 1
    (data / 'b.png').write_bytes(b'')
    assert tool(data) == 1
    assert tool(tmp_path / 'nothing') == 2
    assert tool(data, '--images', tmp_path / 'nothing') == 2
    assert tool(data, '--out', data / 'report') == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 3
    assert sorted(path.name for path in data.iterdir()) == ['a.png', 'b.png', 'x.csv']
