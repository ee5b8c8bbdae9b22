"""Reading and writing videos: frames, times, rotation, damage, odd sizes, colours."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from effdet_plugin.errors import DatasetError
from effdet_plugin.files import RGBImage
from effdet_plugin.inference.sources import find_sources, from_file
from effdet_plugin.inference.video import Frame, opened_video, usable_fps
from effdet_plugin.inference.video_file import (
    H264File,
    VideoFile,
    VP8File,
    even_sides,
    file_class,
    quiet_ffmpeg,
    why_this_codec,
    writing_video,
)

WRITERS = [VP8File, pytest.param(H264File, marks=pytest.mark.export)]


def numbered(number: int, size: tuple[int, int] = (48, 64)) -> RGBImage:
    """A frame whose brightness tells its number."""
    return np.full((*size, 3), 20 + 20 * number, np.uint8)


def read_all(path: Path, step: int = 1) -> tuple[list[Frame], str]:
    with opened_video(from_file(path)) as video:
        return list(video.frames(step)), video.remark


@pytest.fixture
def mpeg4(tmp_path: Path) -> Path:
    """Ten frames in an mp4 of OpenCV; the left half is bright."""
    path = tmp_path / 'a.mp4'
    quiet_ffmpeg()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), 10, (64, 48))
    for _ in range(10):
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[:, :32] = 200
        writer.write(frame)
    writer.release()
    return path


def test_frames__numbers_and_times(mpeg4: Path) -> None:
    frames, remark = read_all(mpeg4, step=3)
    assert [frame.number for frame in frames] == [0, 3, 6, 9]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.3, 0.6, 0.9])
    assert frames[0].image.shape == (48, 64, 3)
    assert remark == ''


def test_frames__a_phones_rotation_is_applied(mpeg4: Path) -> None:
    """By a quarter clockwise: what was on the left is at the top."""
    data = bytearray(mpeg4.read_bytes())
    start = data.index(b'tkhd') + 44
    matrix = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30], '>i4')
    data[start : start + 36] = matrix.tobytes()
    mpeg4.write_bytes(data)
    frames, _ = read_all(mpeg4)
    assert frames[0].image.shape == (64, 48, 3)
    assert frames[0].image[:24].mean() > 150
    assert frames[0].image[40:].mean() < 50


def test_frames__a_cut_tail_is_told(tmp_path: Path) -> None:
    path = tmp_path / f'a{file_class().suffix}'
    rng = np.random.default_rng(0)
    with writing_video(path, 10) as file:
        for number in range(20):
            file.write(rng.integers(0, 255, (48, 64, 3), np.uint8), number / 10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, remark = read_all(path)
    assert 0 < len(frames) < 15
    assert f'only {len(frames)} of about 20 frames' in remark


@pytest.mark.parametrize('content', [b'', b'no video at all', b'\0\0\0\x20ftypisom' + bytes(900)])
def test_video__what_is_none_is_one_line(
    content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'a.mp4').write_bytes(content)
    with pytest.raises(DatasetError, match=r'a\.mp4: cannot be read'):
        read_all(tmp_path / 'a.mp4')
    assert capfd.readouterr().err == ''


def test_video__no_camera_and_no_stream(capfd: pytest.CaptureFixture[str]) -> None:
    (camera,) = find_sources('97')
    with pytest.raises(DatasetError, match='camera 97 cannot be opened'), opened_video(camera):
        pass
    (stream,) = find_sources('rtsp://me:secret@127.0.0.1:9/cam')
    says = r'^rtsp://127\.0\.0\.1:9/cam: cannot be opened'  # without the password
    with pytest.raises(DatasetError, match=says), opened_video(stream):
        pass
    assert capfd.readouterr().err == ''


@pytest.mark.parametrize('value', [0, float('nan'), -1, 90_000])
def test_usable_fps__nonsense_becomes_a_usual_rate(value: float) -> None:
    assert usable_fps(value) == 25
    assert usable_fps(12.5) == 12.5


def write(kind: type[VideoFile], path: Path, frames: list[RGBImage], times: list[float]) -> None:
    if kind is H264File:
        pytest.importorskip('av')
    file = kind(path, 10)
    for frame, time_s in zip(frames, times, strict=True):
        file.write(frame, time_s)
    file.close()


@pytest.mark.parametrize('kind', WRITERS)
def test_write__all_frames_in_order(kind: type[VideoFile], tmp_path: Path) -> None:
    path = tmp_path / f'a{kind.suffix}'
    write(kind, path, [numbered(i) for i in range(10)], [i / 10 for i in range(10)])
    frames, remark = read_all(path)
    assert [round((frame.image.mean() - 20) / 20) for frame in frames] == list(range(10))
    assert [frame.time_s for frame in frames] == pytest.approx(
        [i / 10 for i in range(10)], abs=2e-3
    )
    assert remark == ''


@pytest.mark.parametrize('kind', WRITERS)
def test_write__frames_keep_their_times(kind: type[VideoFile], tmp_path: Path) -> None:
    """A frame that is shown for long: its successor comes when it came."""
    path = tmp_path / f'a{kind.suffix}'
    write(kind, path, [numbered(i) for i in range(4)], [0, 0.1, 0.9, 1.0])
    shown = {round((f.image.mean() - 20) / 20): f.time_s for f in reversed(read_all(path)[0])}
    assert shown == pytest.approx({0: 0, 1: 0.1, 2: 0.9, 3: 1.0}, abs=2e-3)


@pytest.mark.parametrize('kind', WRITERS)
@pytest.mark.parametrize('size', [(49, 63), (1, 1), (16, 333)])
def test_write__odd_sizes_and_colours(
    kind: type[VideoFile], size: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / f'a{kind.suffix}'
    for colour in ((200, 40, 90), (20, 180, 60)):
        write(kind, path, [np.full((*size, 3), colour, np.uint8)] * 2, [0, 0.1])
        image = read_all(path)[0][0].image
        assert image.shape[0] - size[0] in (0, 1) or image.shape[0] == 16
        assert np.abs(image.reshape(-1, 3).mean(0) - colour).max() < 4


def test_write__another_size_later_is_resized(tmp_path: Path) -> None:
    with writing_video(tmp_path / f'a{file_class().suffix}', 10) as file:
        file.write(numbered(0), 0)
        file.write(numbered(5, (96, 30)), 0.1)
        assert file.is_resized
    frames, _ = read_all(tmp_path / f'a{file_class().suffix}')
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 2


def test_writing_video__an_error_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with writing_video(tmp_path / f'a{file_class().suffix}', 10) as file:
            file.write(numbered(0), 0)
            raise RuntimeError('no more frames')

    with pytest.raises(RuntimeError, match='no more frames'):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('found', 'kind', 'says'), [(object(), H264File, 'PyAV'), (None, VP8File, 'pip install av')]
)
def test_file_class__says_why(
    found: object, kind: type[VideoFile], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('effdet_plugin.inference.video_file.find_spec', lambda name: found)
    assert file_class() is kind
    assert says in why_this_codec()


def test_even_sides__repeats_the_edge() -> None:
    image = np.arange(17 * 19 * 3, dtype=np.uint8).reshape(17, 19, 3)
    even = even_sides(image)
    assert even.shape == (18, 20, 3)
    np.testing.assert_array_equal(even[:17, :19], image)
    np.testing.assert_array_equal(even[17, :19], image[16])
    assert even_sides(even) is even
