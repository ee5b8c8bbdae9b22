"""Open a checkpoint, whatever it is: the format is told from the file's content."""

import gzip
import io
import re
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from typing import IO, Any

from torch import Tensor
from typing_extensions import Self

from effdet_plugin.convert.array_files import HDF5_MAGIC, open_hdf5, open_npz
from effdet_plugin.convert.sources import Source
from effdet_plugin.convert.tf_checkpoint import find_prefix, open_tf
from effdet_plugin.convert.torch_file import is_torch_zip, open_torch
from effdet_plugin.errors import CheckpointError, UserError
from effdet_plugin.files import sha256

GZIP_MAGIC = b'\x1f\x8b'
# The largest release, D7x with averages and momenta, unpacks to less than 1 GB.
MAX_BYTES = 8 << 30
_WANTED = re.compile(r'^checkpoint$|\.(index|h5|npz|pth)$|\.data-\d{5}-of-\d{5}$')
_BLOCK_BYTES = 1 << 20
# Weights hardly shrink; what shrinks to less than this is a bomb, unless it is small.
_MAX_RATIO, _FREE_BYTES = 100, 256 << 20
_MAX_MEMBERS = 10_000
_MAX_HEADER_BYTES = 1 << 20
_HEADER_TYPES = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
_SPARSE = 'the archive has a sparse member: pack it again without --sparse'


@contextmanager
def open_source(path: str | Path, raw: bool = False) -> Iterator[Source]:
    """Open a checkpoint for the time of the context.

    Args:
        path: a TensorFlow checkpoint (folder, archive, prefix or one of its files), ``.npz``, Keras
            ``.h5`` or a PyTorch file.
        raw: raw instead of averaged weights of a PyTorch file that has both.

    Raises:
        CheckpointError: Nothing readable is there; the one line names ``path``.
    """
    path = Path(path)
    with ExitStack() as stack:
        with damage_is_reported(path):
            source = _open(path, raw, stack)

        def read(name: str) -> Tensor:
            with damage_is_reported(path):
                return source.read(name)

        yield replace(source, read=read)


@contextmanager
def damage_is_reported(path: Path) -> Iterator[None]:
    """Turn whatever the reader of a format raises into one line that names the file.

    Of damaged input, zipfile, tarfile, numpy, h5py and torch raise a dozen types between them, none
    of them documented.
    """
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(with_path(path, str(error))) from error
    except UserError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(
            f'{path}: no such file or folder, nor the name of a release (d0, d3-640, lite2, ...)'
        ) from error
    except Exception as error:
        reason = ' '.join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f'{path}: cut off or damaged, or not readable: {reason}') from error


def with_path(path: Path, message: str) -> str:
    """Return a message with the file in front, unless it is there."""
    return message if message.startswith(str(path)) else f'{path}: {message}'


def _open(path: Path, raw: bool, stack: ExitStack) -> Source:
    prefix = find_prefix(path)
    if prefix is not None:
        return open_tf(prefix)
    if path.exists() and not path.is_file():
        raise CheckpointError('neither a file nor the folder of a TensorFlow checkpoint')
    with path.open('rb') as file:
        head = file.read(tarfile.BLOCKSIZE)
    if head.startswith(HDF5_MAGIC):
        return stack.enter_context(open_hdf5(path))
    if head.startswith(GZIP_MAGIC) or head[257:262] == b'ustar':
        folder = Path(stack.enter_context(TemporaryDirectory(prefix='effdet_convert_')))
        return replace(_open(_unpack(path, folder), raw, stack), path=path, sha256=sha256(path))
    if head.startswith(b'PK') and not is_torch_zip(path):
        return stack.enter_context(open_npz(path))
    if head.startswith((b'PK', b'\x80')):
        return open_torch(path, raw)
    raise CheckpointError(
        'not a checkpoint that can be read: give a TensorFlow checkpoint (folder, .tar.gz, '
        '.index), .npz, .h5 or .pth'
    )


def _unpack(path: Path, folder: Path) -> Path:
    """Unpack the checkpoint of an archive; return the folder, or its only file.

    Only files that belong to a checkpoint are written, under their own last names: no member can
    reach outside, and folders in the archive do not matter.
    """
    with path.open('rb') as file:
        is_gzip = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    most = min(MAX_BYTES, _FREE_BYTES + _MAX_RATIO * path.stat().st_size)
    with gzip.open(path) if is_gzip else path.open('rb') as opened:
        stream = _Bounded(opened, most)
        with tarfile.open(fileobj=stream, mode='r|', tarinfo=_PlainMember) as archive:
            _unpack_members(archive, folder)
        # The end of a gzip stream holds its length and checksum: read that far.
        while stream.read(_BLOCK_BYTES):
            pass
    files = sorted(folder.iterdir())
    if not files:
        raise CheckpointError('the archive holds no checkpoint (.index and .data files)')
    return files[0] if len(files) == 1 and files[0].suffix != '.index' else folder


class _Bounded(io.RawIOBase):
    """A stream that gives no more than a number of bytes."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, most: int) -> None:
        self.stream, self.most, self.left = stream, most, most

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes.

        Raises:
            CheckpointError: There are more than the bound.
        """
        content = self.stream.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise CheckpointError(f'the archive unpacks to more than {self.most >> 20} MB')
        return content


class _PlainMember(tarfile.TarInfo):
    """A member of an archive as ``tar`` packs checkpoints; others can cost any memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read one header; tarfile reads names and attributes behind it into memory.

        Raises:
            CheckpointError: They are large, or the member has holes.
        """
        member = super().frombuf(buf, encoding, errors)
        is_header = member.type in _HEADER_TYPES
        if is_header and not 0 <= member.size <= _MAX_HEADER_BYTES:
            raise CheckpointError(f'the archive has a header of {member.size} bytes')
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise CheckpointError(_SPARSE)
        return member

    def _proc_gnusparse_10(self, *_: Any) -> None:
        """Refuse the form of a sparse member whose list of holes has no bound."""
        raise CheckpointError(_SPARSE)


def _unpack_members(archive: tarfile.TarFile, folder: Path) -> None:
    for number, member in enumerate(archive):
        if number >= _MAX_MEMBERS:
            raise CheckpointError(f'the archive has more than {_MAX_MEMBERS} members')
        inside = PurePosixPath(member.name)
        if inside.is_absolute() or '..' in inside.parts:
            raise CheckpointError(f'the archive names a path outside itself: {member.name!r}')
        if member.issparse():
            raise CheckpointError(_SPARSE)
        # macOS puts a `._name` beside each file.
        is_wanted = _WANTED.search(inside.name) and not inside.name.startswith('._')
        content: IO[bytes] | None = archive.extractfile(member) if member.isreg() else None
        if content is None or not is_wanted:
            continue
        target = folder / inside.name
        if target.exists():
            raise CheckpointError(f'the archive holds two files {inside.name!r}: unpack and choose')
        with target.open('wb') as file:
            copyfileobj(content, file, _BLOCK_BYTES)
