"""Archives that would cost far more than they weigh are refused in a line, at once."""

import gzip
import io
import os
import tarfile
import zlib
from pathlib import Path

import pytest

from effdet_plugin.convert import open_source
from effdet_plugin.convert.open_source import open_source as open_checkpoint
from effdet_plugin.errors import CheckpointError


def refusal(path: Path) -> str:
    """The line with which a file is refused."""
    with pytest.raises(CheckpointError) as caught, open_checkpoint(path):
        pass
    line = str(caught.value)
    assert '\n' not in line
    assert line.startswith(str(path))
    return line


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def write_zeros(path: Path, head: bytes, megabytes: int) -> Path:
    """A gzip file of a head and zeros."""
    with gzip.open(path, 'wb', compresslevel=1) as file:
        file.write(head)
        for _ in range(megabytes):
            file.write(bytes(1 << 20))
    return path


@pytest.mark.parametrize(
    'kind', [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
)
def test_header_behind_a_header(tmp_path: Path, kind: bytes) -> None:
    path = write_zeros(tmp_path / 'x.tar.gz', header('x', 2 << 30, kind), 4)
    assert 'has a header of 2147483648 bytes' in refusal(path)


def test_sparse_member_of_gnu(tmp_path: Path) -> None:
    path = write_zeros(tmp_path / 'x.tar.gz', header('x.h5', 0, tarfile.GNUTYPE_SPARSE), 1)
    assert 'sparse member' in refusal(path)


@pytest.mark.parametrize(
    'fields',
    [
        {'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.name': 'x.h5'},
        {'GNU.sparse.size': '99999999999', 'GNU.sparse.map': '0,1', 'GNU.sparse.name': 'x.h5'},
    ],
)
def test_sparse_member_of_pax(tmp_path: Path, fields: dict[str, str]) -> None:
    fields['GNU.sparse.realsize'] = '99999999999'
    with tarfile.open(tmp_path / 'x.tar', 'w', format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo('x.h5')
        member.pax_headers, member.size = fields, 1024
        archive.addfile(member, io.BytesIO(b'9' * 1023 + b'\n'))
    assert 'sparse member' in refusal(tmp_path / 'x.tar')


@pytest.mark.parametrize('name', ['x.h5', 'unwanted.bin'])
def test_large_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(open_source, '_FREE_BYTES', 1 << 20)
    path = write_zeros(tmp_path / 'x.tar.gz', header(name, 30 << 20), 31)
    assert 'unpacks to more than' in refusal(path)


def test_zeros_behind_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_source, '_FREE_BYTES', 1 << 20)
    path = write_zeros(tmp_path / 'x.tar.gz', header('x.h5', 0) + bytes(1024), 30)
    assert 'unpacks to more than' in refusal(path)


def test_many_members(tmp_path: Path) -> None:
    with gzip.open(tmp_path / 'x.tar.gz', 'wb') as file:
        file.write(header('x', 0) * 10_100)
    assert 'more than 10000 members' in refusal(tmp_path / 'x.tar.gz')


def test_name_with_control_characters(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / 'x.tar', 'w') as archive:
        archive.addfile(tarfile.TarInfo('../\x1b[2Jx.h5'))
    line = refusal(tmp_path / 'x.tar')
    assert '\\x1b[2Jx.h5' in line


def test_pipe_and_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'pipe.pth')
    assert 'neither a file nor the folder' in refusal(tmp_path / 'pipe.pth')
    assert 'neither a file nor the folder' in refusal(Path('/dev/zero'))


def test_checksum_of_the_stream_is_still_read(tmp_path: Path) -> None:
    content = header('x.h5', 0) + bytes(1024)
    packed = bytearray(gzip.compress(content))
    packed[-8:-4] = (zlib.crc32(content) ^ 1).to_bytes(4, 'little')
    (tmp_path / 'x.tar.gz').write_bytes(packed)
    assert 'CRC' in refusal(tmp_path / 'x.tar.gz')
