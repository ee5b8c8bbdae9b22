"""Downloads: broken connections, hashes, bounds, and what is kept of them."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from time import sleep

import pytest
from loopback import Server, serving

from effdet_plugin import download
from effdet_plugin.download import OFFLINE, fetch, forget, local_path, made, make_once
from effdet_plugin.errors import CheckpointError

CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(monkeypatch) as server:
        yield server


def part_of(server: Server, folder: Path) -> Path:
    """Where the received part of ``a/x.bin`` is kept."""
    digest = hashlib.sha256(f'{server.url}a/x.bin'.encode()).hexdigest()[:16]
    path = folder / digest / 'a-x.bin.part'
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_fetch__once_with_progress(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files['a/x.bin'] = CONTENT
    for _ in range(2):
        path = fetch(f'{server.url}a/x.bin', tmp_path / 'cache', 'thing')
        assert path.read_bytes() == CONTENT
    assert server.requests == [None]
    assert 'thing: 100%' in capsys.readouterr().err
    assert path.name == 'a-x.bin'
    names = {path.name for path in path.parent.iterdir()}
    assert names == {'a-x.bin', 'a-x.bin.sha256', '.lock'}


def test_fetch__resumes_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.files['a/x.bin'] = CONTENT
    server.break_after = [1000, 5000, 0]
    assert fetch(f'{server.url}a/x.bin', tmp_path, 'x').read_bytes() == CONTENT
    assert server.requests == [None, 'bytes=1000-', 'bytes=6000-', 'bytes=6000-']


def test_fetch__resumes_what_an_earlier_process_left(server: Server, tmp_path: Path) -> None:
    server.files['a/x.bin'] = CONTENT
    part_of(server, tmp_path).write_bytes(CONTENT[:777])
    assert fetch(f'{server.url}a/x.bin', tmp_path, 'x').read_bytes() == CONTENT
    assert server.requests == ['bytes=777-']


@pytest.mark.parametrize(
    ('page', 'words'),
    [(b'\n <!DOCTYPE html><title>log in</title>', 'a web page'), (b'', 'nothing')],
)
def test_fetch__what_is_no_file_is_not_kept(
    server: Server, tmp_path: Path, page: bytes, words: str
) -> None:
    """A page to log in, or one about the file: the next attempt must not find it."""
    server.files['a/x.bin'] = page
    with pytest.raises(CheckpointError, match=f'answers with {words}, not with a file'):
        fetch(f'{server.url}a/x.bin', tmp_path, 'x')
    server.files['a/x.bin'] = CONTENT
    assert fetch(f'{server.url}a/x.bin', tmp_path, 'x').read_bytes() == CONTENT


@pytest.mark.parametrize('left', [CONTENT, CONTENT + b'of another file'])
def test_fetch__complete_or_too_long_part(server: Server, tmp_path: Path, left: bytes) -> None:
    server.files['a/x.bin'] = CONTENT
    part_of(server, tmp_path).write_bytes(left)
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
    assert part_of(server, tmp_path).read_bytes() == CONTENT[:1000]
    assert not part_of(server, tmp_path).with_name('a-x.bin').exists()


def test_fetch__no_such_file(server: Server, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'd9: .*answers 404'):
        fetch(f'{server.url}a/x.bin', tmp_path, 'd9')
    assert server.requests == [None]


def test_fetch__cache_that_is_a_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(CheckpointError, match='cannot keep downloads here'):
        fetch(f'{server.url}a/x.bin', tmp_path / 'file', 'x')


def test_fetch__two_addresses_of_one_name(server: Server, tmp_path: Path) -> None:
    server.files |= {'a/x.bin': b'one', 'b/a/x.bin': b'two', 'a/x.bin?version=2': b'three'}
    found = [fetch(server.url + file, tmp_path, 'x').read_bytes() for file in server.files]
    assert found == [b'one', b'two', b'three']


def test_fetch__a_file_that_has_changed_in_the_cache(server: Server, tmp_path: Path) -> None:
    server.files['a/x.bin'] = CONTENT
    path = fetch(f'{server.url}a/x.bin', tmp_path, 'x')
    path.write_bytes(CONTENT[:-1] + b'?')
    assert fetch(f'{server.url}a/x.bin', tmp_path, 'x').read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_fetch__the_hash_that_a_name_tells(server: Server, tmp_path: Path) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    right, date = f'a/net-{digest[:8]}.pth', 'a/net-20200130.pth'
    server.files |= {right: CONTENT, date: CONTENT, 'a/net-0badbeef.pth': CONTENT}
    for file in (right, date):
        assert fetch(server.url + file, tmp_path, 'x').read_bytes() == CONTENT
    with pytest.raises(CheckpointError, match=rf'{digest[:16]}.*not 0badbeef.*exchanged'):
        fetch(f'{server.url}a/net-0badbeef.pth', tmp_path, 'x')
    assert not list(tmp_path.glob('*/*0badbeef.pth*'))


@pytest.mark.parametrize('says_size', [True, False])
def test_fetch__more_than_the_bound(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says_size: bool
) -> None:
    monkeypatch.setattr(download, 'MAX_BYTES', 300_000)
    server.files['a/x.bin'] = CONTENT
    server.says_size = says_size
    with pytest.raises(CheckpointError, match=r'x: .*has more than'):
        fetch(f'{server.url}a/x.bin', tmp_path, 'x')
    part = part_of(server, tmp_path)
    assert not part.exists() or part.stat().st_size < len(CONTENT)


def test_fetch__says_what_is_not_encrypted(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files['a/x.bin'] = b'content'
    fetch(f'{server.url}a/x.bin', tmp_path, 'x')
    assert f'warning: {server.url}a/x.bin is not encrypted' in capsys.readouterr().err
    for address in ('ftp://host/x.bin', 'file:///etc/passwd'):
        with pytest.raises(CheckpointError, match='no address of https'):
            fetch(address, tmp_path, 'x')


def test_local_path__of_a_path_and_of_an_address(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    server.files['a/x.bin'] = b'content'
    assert local_path(tmp_path / 'x.pth') == tmp_path / 'x.pth'
    path = local_path(f'{server.url}a/x.bin')
    assert path.read_bytes() == b'content'
    assert path.is_relative_to(tmp_path / 'hub' / 'effdet_plugin')


def test_fetch__with_patience_an_attempt_without_a_new_byte_is_the_last(
    server: Server, tmp_path: Path
) -> None:
    server.files['a/x.bin'] = CONTENT
    server.break_after = [1000, 5000]
    assert fetch(f'{server.url}a/x.bin', tmp_path, 'x', patience=5).read_bytes() == CONTENT
    server.files['b/x.bin'] = CONTENT
    server.break_after = [1000, 0]
    with pytest.raises(CheckpointError, match='ended early'):
        fetch(f'{server.url}b/x.bin', tmp_path, 'x', patience=5)
    assert len(server.requests) == 3 + 2


def test_fetch__offline_takes_what_is_kept(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files['a/x.bin'] = CONTENT
    monkeypatch.setenv(OFFLINE, '1')
    with pytest.raises(CheckpointError, match=f'x: {OFFLINE} is set: nothing is downloaded'):
        fetch(f'{server.url}a/x.bin', tmp_path, 'x')
    assert server.requests == []
    monkeypatch.setenv(OFFLINE, '0')
    path = fetch(f'{server.url}a/x.bin', tmp_path, 'x')
    monkeypatch.setenv(OFFLINE, '1')
    assert fetch(f'{server.url}a/x.bin', tmp_path, 'x') == path


def test_make_once__what_fails_fails_for_those_who_wait(tmp_path: Path) -> None:
    calls, begun = [], Event()

    def fail() -> Path:
        calls.append('one')
        begun.set()
        sleep(0.5)
        raise CheckpointError('no answer')

    def call() -> str:
        with pytest.raises(CheckpointError) as error:
            make_once(tmp_path / 'cache', fail)
        return str(error.value)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(call)
        assert begun.wait(5)
        others = [pool.submit(call) for _ in range(2)]
        assert {one.result() for one in (first, *others)} == {'no answer'}
    assert len(calls) == 1
    call()
    assert len(calls) == 2, 'who comes later tries again'


def test_make_once__made_again_where_it_has_changed(tmp_path: Path) -> None:
    folder = tmp_path / 'cache'

    def make() -> Path:
        (folder / 'x.pth').write_bytes(b'content')
        return folder / 'x.pth'

    assert made(folder) is None
    path = make_once(folder, make)
    assert made(folder) == path
    path.write_bytes(b'other')
    assert made(folder) is None
    assert make_once(folder, make).read_bytes() == b'content'
    path.write_bytes(b'other')
    forget(path)
    assert sorted(one.name for one in folder.iterdir()) == ['.lock']
    (tmp_path / 'file').touch()
    with pytest.raises(CheckpointError, match='cannot keep files here'):
        make_once(tmp_path / 'file' / 'cache', make)
