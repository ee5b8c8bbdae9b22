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
from effdet_plugin.inference import Detector, Tiles
from effdet_plugin.inference.results import coco_rows
from effdet_plugin.inference.video_file import file_class, writing_video
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


def test_infer__tiles_of_an_image_and_a_video(
    infer: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the detector with these tiles gives, and drawings of the whole images."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (96, 192, 3), dtype=np.uint8)
    write_image(tmp_path / 'in' / 'wide.png', image)
    with writing_video(tmp_path / 'in' / f'clip{file_class().suffix}', 10) as file:
        for number in range(2):
            file.write(image, number / 10)
    arguments = (tmp_path / 'in', '--out', tmp_path / 'out', '--image-size', 64, '--score-thr', 0)
    assert infer(*arguments, '--tiles', '2x1:0', '--tiles-only') == 0
    assert '1 image and 2 frames' in capsys.readouterr().out
    assert read_image(tmp_path / 'out' / 'vis' / 'wide.png').shape == (96, 192, 3)
    rows = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert {row.get('frame') for row in rows} == {None, 0, 1}
    detector = Detector(
        CONFIG, 'none', image_size=64, tiles=Tiles.parse('2x1:0', whole=False), fast=True
    )
    expected = coco_rows(detector(image)[0], detector.classes, 3, 'wide.png')
    assert len(expected) > 0
    assert [row for row in rows if row['file_name'] == 'wide.png'] == expected


def test_infer__a_process_without_torchrun(
    infer: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_image(tmp_path / 'a.png', np.full((40, 60, 3), 90, np.uint8))
    monkeypatch.delenv('RANK', raising=False)
    assert infer(tmp_path / 'a.png', '--image-size', 64, '--launcher', 'pytorch') == 2
    assert 'tools/dist_infer.sh' in capsys.readouterr().err
