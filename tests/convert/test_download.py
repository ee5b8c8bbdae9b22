"""Downloads, against a server on the loopback that breaks connections on purpose."""

import re
import tarfile
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from reference_variables import variables
from tf_writer import write_bundle

from effdet_plugin.convert import convert, download
from effdet_plugin.convert.download import RELEASES, fetch, fetch_release, release_name
from effdet_plugin.errors import CheckpointError

CONTENT = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Serves files; ``break_after`` are bytes after which the next answers end early."""

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), Handler)
        self.files: dict[str, bytes] = {}
        self.break_after: list[int] = []
        self.has_ranges = True
        self.requests: list[str | None] = []

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_address[1]}/'


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get('Range')
        self.server.requests.append(wanted)
        data = self.server.files.get(self.path.lstrip('/'))
        if data is None:
            self.send_error(404)
            return
        start = 0
        if wanted and self.server.has_ranges:
            start = int(re.findall(r'\d+', wanted)[0])
            if start >= len(data):
                self.send_response(416)
                self.send_header('Content-Range', f'bytes */{len(data)}')
                self.end_headers()
                return
        self.send_response(206 if start else 200)
        self.send_header('Content-Length', str(len(data) - start))
        self.end_headers()
        end = self.server.break_after.pop(0) if self.server.break_after else len(data)
        self.wfile.write(data[start:][:end])

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download.time, 'sleep', lambda seconds: None)
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = Thread(target=partial(server.serve_forever, poll_interval=0.01), daemon=True)
        thread.start()
        yield server
        server.shutdown()


def test_fetch__once_with_progress(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files['a/x.bin'] = CONTENT
    for _ in range(2):
        path = fetch(f'{server.url}a/x.bin', tmp_path / 'cache', 'thing')
        assert path.read_bytes() == CONTENT
    assert server.requests == [None]
    assert 'thing: 100%' in capsys.readouterr().err
    assert [path.name for path in (tmp_path / 'cache').iterdir()] == ['a-x.bin']


def test_fetch__resumes_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.files['a/x.bin'] = CONTENT
    server.break_after = [1000, 5000, 0]
    assert fetch(f'{server.url}a/x.bin', tmp_path, 'x').read_bytes() == CONTENT
    assert server.requests == [None, 'bytes=1000-', 'bytes=6000-', 'bytes=6000-']


def test_fetch__resumes_what_an_earlier_process_left(server: Server, tmp_path: Path) -> None:
    server.files['a/x.bin'] = CONTENT
    (tmp_path / 'a-x.bin.part').write_bytes(CONTENT[:777])
    assert fetch(f'{server.url}a/x.bin', tmp_path, 'x').read_bytes() == CONTENT
    assert server.requests == ['bytes=777-']


@pytest.mark.parametrize('left', [CONTENT, CONTENT + b'of another file'])
def test_fetch__complete_or_too_long_part(server: Server, tmp_path: Path, left: bytes) -> None:
    server.files['a/x.bin'] = CONTENT
    (tmp_path / 'a-x.bin.part').write_bytes(left)
    assert fetch(f'{server.url}a/x.bin', tmp_path, 'x').read_bytes() == CONTENT


def test_fetch__server_without_ranges(server: Server, tmp_path: Path) -> None:
    server.files['a/x.bin'] = CONTENT
    server.has_ranges = False
    server.break_after = [1000]
    assert fetch(f'{server.url}a/x.bin', tmp_path, 'x').read_bytes() == CONTENT


def test_fetch__gives_up_and_keeps_the_part(server: Server, tmp_path: Path) -> None:
    server.files['a/x.bin'] = CONTENT
    server.break_after = [1000] + [0] * download.ATTEMPTS
    with pytest.raises(CheckpointError, match=rf'x: .*{server.url}a/x.bin') as caught:
        fetch(f'{server.url}a/x.bin', tmp_path, 'x')
    assert '\n' not in str(caught.value)
    assert (tmp_path / 'a-x.bin.part').read_bytes() == CONTENT[:1000]
    assert not (tmp_path / 'a-x.bin').exists()


def test_fetch__no_such_file(server: Server, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'd9: .*answers 404'):
        fetch(f'{server.url}a/x.bin', tmp_path, 'd9')
    assert server.requests == [None]


def test_fetch__no_network(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, 'BASE_URL', server.url)
    server.server_close()
    with pytest.raises(CheckpointError, match=r'd0: cannot be downloaded .*check the network'):
        fetch_release('d0', tmp_path)


def test_fetch__cache_that_is_a_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(CheckpointError, match='cannot keep downloads here'):
        fetch(f'{server.url}a/x.bin', tmp_path / 'file', 'x')


@pytest.mark.parametrize(
    ('src', 'expected'),
    [
        ('d0', 'd0'),
        ('D7x', 'd7x'),
        ('efficientdet-d3-640', 'd3-640'),
        ('d1-advprop', 'd1-advprop'),
        ('lite2', 'lite2'),
        ('d9', None),
        ('d0.npz', None),
        ('folder/d0', None),
    ],
)
def test_release_name(src: str, expected: str | None) -> None:
    assert release_name(src) == expected


def test_release_name__a_path_of_that_name_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'd0').mkdir()
    assert release_name('d0') is None


def test_releases__all_of_the_reference() -> None:
    assert len(RELEASES) == 9 + 5 + 6 + 6
    assert RELEASES['d0'] == 'coco2/efficientdet-d0.tar.gz'
    assert RELEASES['d6-640'] == 'coco640/efficientdet-d6-640.tar.gz'


def test_convert__a_name(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {name: torch.zeros(shape) for name, shape in variables('d0').items()}
    write_bundle(tmp_path / 'run' / 'model', values)
    with tarfile.open(tmp_path / 'x.tar.gz', 'w:gz', compresslevel=1) as archive:
        archive.add(tmp_path / 'run', 'efficientdet-d0')
    server.files[RELEASES['d0-advprop']] = (tmp_path / 'x.tar.gz').read_bytes()
    monkeypatch.setattr(download, 'BASE_URL', server.url)
    result = convert('d0-advprop', cache=tmp_path / 'cache')
    assert result.meta['source'] == 'd0-advprop'
    assert result.meta['model'] == 'd0'
    assert result.report.source == 'advprop-efficientdet-d0.tar.gz'
    address = server.url + RELEASES['d0-advprop']
    assert convert(address, cache=tmp_path / 'cache').meta['sha256'] == result.meta['sha256']
    assert len(server.requests) == 1
    assert len(result.meta['sha256']) == 64
