"""Opening a checkpoint, whatever it is: the format is told from the file's content."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from effdet_plugin.convert import archive, hdf5, numpy_file, tf_source, torch_file
from effdet_plugin.convert.sources import Source, damage_is_reported, sha256
from effdet_plugin.errors import CheckpointError


@contextmanager
def open_source(path: str | Path, raw: bool = False) -> Iterator[Source]:
    """Open a checkpoint for the time of the context.

    Args:
        path: a TensorFlow checkpoint (folder, archive, prefix or one of its files), ``.npz``, Keras
            ``.h5`` or a PyTorch file.
        raw: raw instead of averaged weights of a PyTorch file that has both.

    Raises:
        CheckpointError: Nothing readable is there.
    """
    path = Path(path)
    with damage_is_reported(path):
        prefix = tf_source.find_prefix(path)
        head = b'' if path.is_dir() or prefix else _head(path)
    if prefix is not None:
        yield tf_source.open_bundle(prefix)
    elif head.startswith(hdf5.MAGIC):
        with hdf5.open_hdf5(path) as source:
            yield source
    elif head.startswith(archive.GZIP_MAGIC) or head[257:262] == b'ustar':
        with archive.unpacked(path) as folder, _open_inside(path, folder, raw) as source:
            yield source
    elif head.startswith(b'PK') and not torch_file.is_torch_zip(path):
        with numpy_file.open_npz(path) as source:
            yield source
    elif head.startswith((b'PK', b'\x80')):
        yield torch_file.open_torch(path, raw)
    else:
        raise CheckpointError(
            f'{path}: not a checkpoint that can be read: give a TensorFlow checkpoint (folder, '
            '.tar.gz, .index), .npz, .h5 or .pth'
        )


@contextmanager
def _open_inside(path: Path, folder: Path, raw: bool) -> Iterator[Source]:
    """A source of an unpacked archive that names the archive, not the folder, also in errors."""
    try:
        with open_source(folder, raw) as source:
            yield replace(source, path=path, sha256=sha256(path))
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(str(folder), str(path))) from error


def _head(path: Path) -> bytes:
    with path.open('rb') as file:
        return file.read(tarfile.BLOCKSIZE)
