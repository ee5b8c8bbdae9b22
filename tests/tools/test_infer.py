"""tools/infer.py from its command line to its files and exit codes."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from effdet_plugin.files import write_image
from effdet_plugin.images import read_image
from support import REPOSITORY

CONFIG = str(REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py')


@pytest.fixture
def infer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the tool in this process; return its exit code."""

    def run(*args: object) -> int:
        tool = str(REPOSITORY / 'tools' / 'infer.py')
        monkeypatch.setattr(sys, 'argv', [tool, CONFIG, 'none', *map(str, args)])
        monkeypatch.setattr(sys, 'path', [str(REPOSITORY / 'tools'), *sys.path])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(tool, run_name='__main__')
        return int(exit_.value.code or 0)

    return run


def test_infer__a_folder_with_a_broken_file(
    infer: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wide image: (height, width) must not be mixed up on the way through 192x128."""
    write_image(tmp_path / 'in' / 'wide.png', np.full((50, 300, 3), 90, np.uint8))
    (tmp_path / 'in' / 'broken.jpg').write_text('no image')
    arguments = (tmp_path / 'in', '--out', tmp_path / 'out', '--image-size', '192x128')
    assert infer(*arguments, '--score-thr', 0) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if 'broken.jpg' in line] == said[:1]
    assert read_image(tmp_path / 'out' / 'vis' / 'wide.png').shape == (50, 300, 3)
    rows = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert {row['file_name'] for row in rows} == {'wide.png'}
    boxes = np.array([row['bbox'] for row in rows])
    assert (boxes >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= [300.1, 50.1]).all()
    assert infer(*arguments, '--strict') == 1


def test_infer__mistakes_are_one_line(
    infer: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'broken.jpg').touch()
    for name in ('broken.jpg', 'missing.jpg'):
        assert infer(tmp_path / name, '--image-size', 128, '--out', tmp_path / 'out') == 2
        (line,) = [one for one in capsys.readouterr().err.splitlines() if 'error: ' in one]
        assert name in line
    assert not (tmp_path / 'out').exists()
