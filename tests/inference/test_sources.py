"""What an INPUT argument means."""

from pathlib import Path

import pytest

from effdet_plugin.errors import DatasetError
from effdet_plugin.inference import find_images, find_sources
from effdet_plugin.inference.sources import Kind, hidden_login, kind_of_content


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of b.png, a.JPG, notes and a sub-folder with c.png."""
    for name in ('b.png', 'a.JPG', 'notes.json', 'sub/c.png', '.hidden.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_find_images__file_folder_glob(images: Path) -> None:
    assert find_images(images / 'b.png') == [images / 'b.png']
    assert find_images(images) == [images / 'a.JPG', images / 'b.png']
    assert find_images(f'{images}/**/*.png') == [images / 'b.png', images / 'sub' / 'c.png']


def test_find_images__a_list_keeps_its_order(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (images / 'list.txt').write_text('# mine\nsub/c.png\n\nb.png\ngone.png\n')
    expected = [images / 'sub/c.png', images / 'b.png', Path('gone.png')]
    assert find_images(images / 'list.txt') == expected
    (images / 'sub' / 'list.txt').write_text('b.png\n')
    monkeypatch.chdir(images)
    assert find_images('sub/list.txt') == [Path('b.png')]


def test_find_images__a_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    (tmp_path / 'a[1].png').touch()
    assert find_images(tmp_path / 'a[1].png') == [tmp_path / 'a[1].png']


@pytest.mark.parametrize(
    ('source', 'says'),
    [('none.png', 'none.png'), ('*.bmp', r'\*\.bmp'), ('', r'\*\*/\*\.jpg')],
)
def test_find_images__says_what_is_missing(tmp_path: Path, source: str, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        find_images(tmp_path / source)


@pytest.mark.parametrize(
    ('text', 'kind', 'name'),
    [
        ('0', Kind.CAMERA, 'camera_0'),
        ('/dev/video12', Kind.CAMERA, 'camera_12'),
        ('http://host:8080/a/photo.jpg?size=2', Kind.WEB, 'photo.jpg'),
        ('https://me:secret@host/', Kind.WEB, 'host'),
        ('rtsp://me:secret@10.0.0.2:554/cam/1?token=x', Kind.STREAM, '10.0.0.2_cam_1'),
        ('https://host/live/index.m3u8', Kind.STREAM, 'host_live_index.m3u8'),
    ],
)
def test_find_sources__cameras_and_addresses(text: str, kind: Kind, name: str) -> None:
    (source,) = find_sources(text)
    assert (source.kind, source.name) == (kind, name)
    assert 'secret' not in source.name + source.stem + hidden_login(source.place)
    assert source.is_live == (kind in (Kind.CAMERA, Kind.STREAM))


@pytest.mark.parametrize('text', ['ftp://host/a.mp4', 'concat://a', 'http:///a.jpg', 'file:///a'])
def test_find_sources__other_addresses_are_refused(text: str) -> None:
    with pytest.raises(DatasetError, match=r'is not read|without a host'):
        find_sources(text)


def test_find_sources__videos_by_suffix_and_by_content(tmp_path: Path) -> None:
    (tmp_path / 'a.MP4').touch()
    (tmp_path / 'b.jpg').touch()
    (tmp_path / 'c.download').write_bytes(b'\0\0\0\x20ftypisom' + bytes(20))
    (tmp_path / 'd').write_bytes(b'\0\0\0\x20ftypavif' + bytes(20))
    assert [one.kind for one in find_sources(tmp_path)] == [Kind.VIDEO, Kind.IMAGE]
    assert find_sources(tmp_path / 'c.download')[0].kind is Kind.VIDEO
    assert find_sources(tmp_path / 'd')[0].kind is Kind.IMAGE
    with pytest.raises(DatasetError, match=r'a\.MP4: a video, where images are needed'):
        find_images(tmp_path)


def test_find_sources__a_file_called_0_is_no_camera(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / '0').touch()
    monkeypatch.chdir(tmp_path)
    assert find_sources('0')[0].kind is Kind.IMAGE


def test_find_sources__a_list_of_addresses_and_files(tmp_path: Path) -> None:
    (tmp_path / 'a.jpg').touch()
    (tmp_path / 'list.txt').write_text('rtsp://host/x\na.jpg\nhttp://host/b.png\n')
    kinds = [source.kind for source in find_sources(tmp_path / 'list.txt')]
    assert kinds == [Kind.STREAM, Kind.IMAGE, Kind.WEB]


@pytest.mark.parametrize(
    ('head', 'kind'),
    [
        (b'\xff\xd8\xff\xe0', Kind.IMAGE),
        (b'RIFF\0\0\0\0WEBPVP8 ', Kind.IMAGE),
        (b'RIFF\0\0\0\0AVI LIST', Kind.VIDEO),
        (b'\x1aE\xdf\xa3\x01', Kind.VIDEO),
        ((b'G' + bytes(187)) * 2, Kind.VIDEO),
        (b'RIFF\0\0\0\0WAVEfmt ', None),
        (b'G' + bytes(200), None),
        (b'<!DOCTYPE html>', None),
        (b'', None),
    ],
)
def test_kind_of_content(head: bytes, kind: Kind | None) -> None:
    assert kind_of_content(head) is kind
