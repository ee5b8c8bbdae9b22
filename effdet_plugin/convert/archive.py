"""The released ``.tar.gz``: its checkpoint files, in a temporary folder for as long as needed."""

import gzip
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from typing import BinaryIO

from effdet_plugin.convert.sources import damage_is_reported
from effdet_plugin.errors import CheckpointError

GZIP_MAGIC = b'\x1f\x8b'
# The largest release, D7x with averages and momenta, unpacks to less than 1 GB.
MAX_BYTES = 8 << 30
_WANTED = re.compile(r'^checkpoint$|\.(index|h5|npz|pth)$|\.data-\d{5}-of-\d{5}$')
_BLOCK_BYTES = 1 << 20


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Folder (or only file) with the checkpoint of an archive; gone when the context ends.

    Only files that belong to a checkpoint are written, under their own last names: no member can
    reach outside, and folders in the archive do not matter.

    Raises:
        CheckpointError: The archive is cut off, holds no checkpoint, or names paths outside itself.
    """
    with TemporaryDirectory(prefix='effdet_convert_') as name:
        folder = Path(name)
        with damage_is_reported(path), _open(path) as stream:
            _unpack(path, stream, folder)
            # The end of a gzip stream holds its length and checksum: read that far.
            while stream.read(_BLOCK_BYTES):
                pass
        files = sorted(folder.iterdir())
        if not files:
            raise CheckpointError(
                f'{path}: the archive holds no checkpoint (.index and .data files)'
            )
        yield files[0] if len(files) == 1 and files[0].suffix != '.index' else folder


def _open(path: Path) -> BinaryIO:
    with path.open('rb') as file:
        is_gzip = file.read(2) == GZIP_MAGIC
    return gzip.open(path, 'rb') if is_gzip else path.open('rb')  # type: ignore[return-value]


def _unpack(path: Path, stream: BinaryIO, folder: Path) -> None:
    total = 0
    with tarfile.open(fileobj=stream, mode='r|') as archive:
        for member in archive:
            inside = PurePosixPath(member.name)
            if inside.is_absolute() or '..' in inside.parts:
                raise CheckpointError(
                    f'{path}: the archive names a path outside itself: {member.name}'
                )
            # macOS puts a `._name` beside each file.
            if (
                not member.isreg()
                or not _WANTED.search(inside.name)
                or inside.name.startswith('._')
            ):
                continue
            total += member.size
            if total > MAX_BYTES:
                raise CheckpointError(
                    f'{path}: the archive unpacks to more than {MAX_BYTES >> 30} GB'
                )
            _write(path, archive, member, folder / inside.name)


def _write(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    if target.exists():
        raise CheckpointError(
            f'{path}: the archive holds two files {target.name}: unpack it and choose'
        )
    content = archive.extractfile(member)
    if content is None:
        raise CheckpointError(f'{path}: {member.name} cannot be read')
    with content, target.open('wb') as file:
        copyfileobj(content, file, _BLOCK_BYTES)
    if target.stat().st_size != member.size:
        raise CheckpointError(f'{path}: cut off inside {member.name}')
