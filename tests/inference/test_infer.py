"""From sources to drawings and the json; what cannot be read, and how it ends early."""

import json
import signal
import sys
import weakref
from collections.abc import Generator
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from effdet_plugin.errors import ConfigError, DatasetError, InstallError
from effdet_plugin.files import RGBImage, write_image
from effdet_plugin.images import read_image
from effdet_plugin.inference import (
    Detector,
    Frames,
    InferOptions,
    find_images,
    find_sources,
    infer,
    infer_files,
)
from effdet_plugin.inference.drawings import Names, Window
from effdet_plugin.inference.sources import from_file
from effdet_plugin.inference.video import Frame, Video, opened_video
from effdet_plugin.inference.video_file import file_class, writing_video


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of different sizes and a broken one, b.jpg."""
    for name, size in (('a.png', (40, 60)), ('c.jpg', (30, 20)), ('d.png', (1, 1))):
        write_image(tmp_path / 'in' / name, np.full((*size, 3), 90, np.uint8))
    (tmp_path / 'in' / 'b.jpg').write_text('no image')
    return tmp_path / 'in'


def test_infer_files__drawings_json_and_unreadable(
    tiny_config: Config, folder: Path, tmp_path: Path
) -> None:
    detector = Detector(tiny_config, 'none', batch_size=2)
    result = infer_files(detector, find_images(folder), tmp_path / 'out')
    assert result.num_read == 3
    assert len(result.unreadable) == 1
    assert 'b.jpg' in result.unreadable[0]
    written = sorted(path.name for path in (tmp_path / 'out' / 'vis').iterdir())
    assert written == ['a.png', 'c.jpg', 'd.png']
    assert read_image(tmp_path / 'out' / 'vis' / 'c.jpg').shape == (30, 20, 3)
    rows = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert rows == result.predictions
    assert {row['file_name']: row['image_id'] for row in rows if row['image_id'] < 4} == {
        'a.png': 1,
        'c.jpg': 3,
    }
    assert all(row['category_name'] == ('cat', 'dog')[row['category_id'] - 1] for row in rows)


def test_infer_files__boxes_in_cocos_form(tiny_config: Config, folder: Path) -> None:
    detector = Detector(tiny_config, 'none')
    rows = infer_files(detector, [folder / 'a.png'], folder / 'out').predictions
    found = detector(folder / 'a.png')[0].pred_instances
    assert len(rows) == len(found) > 0
    for row, box, score in zip(rows, found.bboxes.tolist(), found.scores.tolist(), strict=True):
        x1, y1, x2, y2 = box
        assert row['bbox'] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=0.01)
        assert row['score'] == pytest.approx(score, abs=1e-5)


def test_infer_files__the_only_file_is_broken(tiny_config: Config, folder: Path) -> None:
    with pytest.raises(DatasetError, match=r'b\.jpg'):
        infer_files(Detector(tiny_config, 'none'), [folder / 'b.jpg'], folder / 'out')
    assert not (folder / 'out').exists()


def test_drawing_names__png_stays_png_and_none_comes_twice() -> None:
    files = [Path(name) for name in ('x/a.png', 'x/a.jpg', 'y/a.JPEG', 'A.gif', 'b.PNG')]
    names = Names()
    assert [names.take_for(from_file(file)) for file in files] == [
        'a.png',
        'a.jpg',
        'a_2.jpg',
        'A_3.jpg',
        'b.png',
    ]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Nine frames of 40 x 64 at 10 frames per second."""
    path = tmp_path / f'nine{file_class().suffix}'
    with writing_video(path, 10) as file:
        for number in range(9):
            file.write(np.full((40, 64, 3), 25 * number, np.uint8), number / 10)
    return path


def test_infer__a_video_between_images(
    tiny_config: Config, folder: Path, video: Path, tmp_path: Path
) -> None:
    """Frames of a step of 2 are 0, 2, 4, 6, 8; ids go on after them."""
    sources = [from_file(folder / 'a.png'), from_file(video), from_file(folder / 'c.jpg')]
    detector = Detector(tiny_config, 'none', batch_size=2)
    result = infer(detector, sources, tmp_path / 'out', InferOptions(frames=Frames(step=2)))
    assert (result.num_read, result.num_frames) == (7, 5)
    frames = {row['image_id']: (row.get('frame'), row.get('time_s')) for row in result.predictions}
    assert frames == {
        1: (None, None),
        **{2 + i: (2 * i, pytest.approx(0.2 * i, abs=0.002)) for i in range(5)},
        7: (None, None),
    }
    written = sorted(path.name for path in (tmp_path / 'out' / 'vis').iterdir())
    assert written == ['a.png', 'c.jpg', video.name]
    (drawn,) = find_sources(tmp_path / 'out' / 'vis' / video.name)
    with opened_video(drawn) as again:
        found = list(again.frames())
        assert again.fps == pytest.approx(5)
    assert len(found) == 5
    assert found[0].image.shape == (40, 64, 3)
    assert any(f'{video.name}: 5 frames' in line for line in result.remarks)


def test_infer__at_most_so_many_frames(tiny_config: Config, video: Path, tmp_path: Path) -> None:
    options = InferOptions(frames=Frames(limit=3))
    result = infer(Detector(tiny_config, 'none'), [from_file(video)], tmp_path / 'out', options)
    assert result.num_frames == 3


def test_infer__ctrl_c_leaves_complete_files(
    tiny_config: Config, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGINT)
    detector = Detector(tiny_config, 'none')
    detect = Detector.__call__
    calls: list[int] = []

    def interrupt_at_the_fifth(self: Detector, images: object) -> object:
        calls.append(len(calls))
        if len(calls) == 5:
            signal.raise_signal(signal.SIGINT)
        return detect(self, images)  # type: ignore[arg-type]

    monkeypatch.setattr(Detector, '__call__', interrupt_at_the_fifth)
    result = infer(detector, [from_file(video)], tmp_path / 'out')
    assert result.is_interrupted
    assert 1 <= result.num_frames < 9
    rows = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert {row['frame'] for row in rows} == set(range(result.num_frames))
    (drawn,) = (tmp_path / 'out' / 'vis').iterdir()
    with opened_video(from_file(drawn)) as again:
        assert len(list(again.frames())) == result.num_frames
    assert signal.getsignal(signal.SIGINT) is before


def test_infer__an_error_leaves_no_partial_file(
    tiny_config: Config, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_late(self: Detector, images: object) -> object:
        raise RuntimeError('out of memory')

    detector = Detector(tiny_config, 'none')
    monkeypatch.setattr(Detector, '__call__', fail_late)
    with pytest.raises(RuntimeError, match='out of memory'):
        infer(detector, [from_file(video)], tmp_path / 'out')
    assert [path for path in (tmp_path / 'out').rglob('*') if path.is_file()] == []


def test_infer__says_the_highest_score(tiny_config: Config, folder: Path, tmp_path: Path) -> None:
    detector = Detector(tiny_config, 'none')
    highest = float(detector(folder / 'a.png')[0].pred_instances.scores.max())
    options = InferOptions(score_thr=0.99)
    result = infer(detector, [from_file(folder / 'a.png')], tmp_path / 'out', options)
    assert result.predictions == []
    assert result.summary(0.99) == (
        f'no object above 0.99 in 1 image; highest score {highest:.2g} in a.png'
    )


def test_infer__memory_is_flat(tiny_config: Config, video: Path, tmp_path: Path) -> None:
    """Only a few frames are decoded before they are needed."""
    alive: set[int] = set()
    numbers = count()
    most = 0

    def watch(image: RGBImage, *rest: object) -> RGBImage:
        nonlocal most
        most = max(most, len(alive))
        return image

    detector = Detector(tiny_config, 'none')
    reader = Video.frames

    def counted(self: Video, *args: Any) -> Generator[Frame, None, None]:
        for frame in reader(self, *args):
            number = next(numbers)
            alive.add(number)
            weakref.finalize(frame.image, alive.discard, number)
            yield frame

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Video, 'frames', counted)
        patch.setattr('effdet_plugin.inference.run.draw_boxes', watch)
        result = infer(detector, [from_file(video)] * 3, tmp_path / 'out')
    assert result.num_frames == 27
    assert 1 <= most <= 10  # two queues of two, and one in each step before, between and after


def test_infer__show_without_windows_is_one_line(
    tiny_config: Config, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, 'getBuildInformation', lambda: '  GUI:           NONE\n')
    with pytest.raises(InstallError, match='pip install opencv-python'):
        infer(
            Detector(tiny_config, 'none'),
            [from_file(folder / 'a.png')],
            tmp_path / 'out',
            InferOptions(show=True),
        )
    assert not (tmp_path / 'out').exists()
    monkeypatch.setattr(cv2, 'getBuildInformation', lambda: '  GUI:           QT5\n')
    monkeypatch.setattr(sys, 'platform', 'linux')
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InstallError, match='no display'):
        Window()


@pytest.mark.parametrize('value', [25, -0.1, float('nan')])
def test_infer_options__a_threshold_is_from_0_to_1(value: float) -> None:
    with pytest.raises(ConfigError, match='from 0 to 1'):
        InferOptions(score_thr=value)
