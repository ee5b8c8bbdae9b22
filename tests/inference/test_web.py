"""Images, videos and MJPEG streams by their address, from a server on the loopback."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from loopback import Server, serving
from mmengine.config import Config

from effdet_plugin.errors import DatasetError
from effdet_plugin.inference import Detector, Frames, find_sources, infer, web
from effdet_plugin.inference.reading import Remark, Shot, read_sources
from effdet_plugin.inference.video_file import file_class, writing_video

MJPEG = 'multipart/x-mixed-replace; boundary=frame'


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(monkeypatch) as running:
        yield running


def jpeg(value: int, size: tuple[int, int] = (40, 60)) -> bytes:
    """A grey image."""
    return bytes(cv2.imencode('.jpg', np.full((*size, 3), value, np.uint8))[1])


def stream(frames: list[bytes], tells_length: bool) -> bytes:
    """The body of an MJPEG stream."""
    parts = []
    for frame in frames:
        length = b'Content-Length: %d\r\n' % len(frame) if tells_length else b''
        parts.append(b'--frame\r\nContent-Type: image/jpeg\r\n' + length + b'\r\n' + frame)
    return b'\r\n'.join([*parts, b'--frame--\r\n'])


def read(address: str, frames: Frames | None = None) -> tuple[list[Shot], list[Remark]]:
    items = list(read_sources(find_sources(address), frames or Frames()))
    shots = [item for item in items if isinstance(item, Shot)]
    return shots, [item for item in items if isinstance(item, Remark)]


def test_read__an_image(server: Server) -> None:
    server.files['photo.jpg'] = jpeg(90)
    (shot,), remarks = read(server.url + 'photo.jpg?size=large'.partition('?')[0])
    assert remarks == []
    assert shot.frame is None
    assert shot.source.name == 'photo.jpg'
    assert np.abs(shot.image.astype(int) - 90).max() <= 1


@pytest.mark.parametrize('tells_length', [True, False])
def test_read__an_mjpeg_stream(server: Server, tells_length: bool) -> None:
    """Frame by frame; a damaged one is left out, and counted."""
    values = [10, 60, 110, 160]
    frames = [jpeg(value) for value in values]
    frames.insert(2, b'\xff\xd8 damaged \xff\xd9')
    server.files['cam'] = stream(frames, tells_length)
    server.types['cam'] = MJPEG
    server.says_size = False
    shots, remarks = read(server.url + 'cam')
    assert [round(float(shot.image.mean())) for shot in shots] == values
    assert [shot.frame for shot in shots] == [0, 1, 2, 3]
    assert [shot.image_id for shot in shots] == [1, 2, 3, 4]
    times = [shot.time_s for shot in shots]
    assert times == sorted(times)
    assert [remark.is_unreadable for remark in remarks] == [False]
    shots, _ = read(server.url + 'cam', Frames(step=2, limit=1))
    assert [shot.frame for shot in shots] == [0]


def test_infer__an_mjpeg_stream_becomes_a_video(
    server: Server, tiny_config: Config, tmp_path: Path
) -> None:
    server.files['cam'] = stream([jpeg(20 * i) for i in range(8)], tells_length=True)
    server.types['cam'] = MJPEG
    result = infer(Detector(tiny_config, 'none'), find_sources(server.url + 'cam'), tmp_path)
    assert result.num_frames == 8
    assert {row['frame'] for row in result.predictions} == set(range(8))
    shots, _ = read(str(tmp_path / 'vis' / f'cam{file_class().suffix}'))
    assert len(shots) >= 8  # one that comes late is shown for longer


def test_read__a_video(server: Server, tmp_path: Path) -> None:
    path = tmp_path / f'a{file_class().suffix}'
    with writing_video(path, 10) as file:
        for number in range(5):
            file.write(np.full((40, 64, 3), 40 * number, np.uint8), number / 10)
    server.files['a.mp4'] = path.read_bytes()
    shots, remarks = read(server.url + 'a.mp4')
    assert [shot.frame for shot in shots] == [0, 1, 2, 3, 4]
    assert remarks == []


def test_read__a_login_is_sent_and_never_shown(server: Server) -> None:
    server.files['a.jpg'] = jpeg(50)
    server.login = 'me:s%cret'
    address = server.url.replace('//', '//me:s%25cret@') + 'a.jpg'
    (shot,), _ = read(address)
    assert shot.image.shape == (40, 60, 3)
    server.login = 'me:other'
    _, (remark,) = read(address)
    assert '401' in remark.text
    assert 'cret' not in remark.text


def test_read__what_is_no_image(server: Server) -> None:
    server.files['page'] = b'<!DOCTYPE html><p>hello'
    server.types['page'] = 'text/html'
    server.files['half.jpg'] = jpeg(50)[:300]
    server.files['cam'] = b'no frames here\r\n' * 200
    server.types['cam'] = MJPEG
    said = {
        name: read(server.url + name)[1][0].text for name in ('page', 'half.jpg', 'cam', 'gone')
    }
    assert 'sends text/html, which is no image' in said['page']
    assert said['half.jpg'].startswith(f'{server.url}half.jpg: cannot be read (')
    assert 'no MJPEG stream' in said['cam']
    assert 'answers 404' in said['gone']
    assert all('\n' not in line for line in said.values())


def test_read__nobody_answers() -> None:
    _, (remark,) = read('http://127.0.0.1:9/a.jpg')
    assert 'cannot be read' in remark.text


@pytest.mark.parametrize('says_size', [True, False])
def test_read__sizes_are_bounded(
    server: Server, monkeypatch: pytest.MonkeyPatch, says_size: bool
) -> None:
    monkeypatch.setattr('effdet_plugin.inference.reading.MAX_IMAGE_BYTES', 1 << 20)
    monkeypatch.setattr(web, 'MAX_FRAME_BYTES', 1 << 20)
    large = jpeg(50)[:-2] + bytes(2 << 20) + b'\xff\xd9'
    server.files['a.jpg'] = large
    server.files['cam'] = stream([large], tells_length=says_size)
    server.types['cam'] = MJPEG
    server.says_size = says_size
    for name in ('a.jpg', 'cam'):
        shots, (remark,) = read(server.url + name)
        assert shots == []
        assert 'more than 1 MB' in remark.text


def test_decode_jpeg__too_many_pixels_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, 'MAX_PIXELS', 100)
    with pytest.raises(DatasetError, match='60x40'):
        web.decode_jpeg(jpeg(50), 'cam')
