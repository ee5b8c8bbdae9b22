"""Opening a checkpoint, whatever it is: the format is told from the file's content.

Each reader yields a :class:`Source`: names and shapes at once, values when asked for.
"""

import hashlib
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from effdet_plugin.convert.architecture import Shapes
from effdet_plugin.convert.rules import Dialect
from effdet_plugin.errors import CheckpointError, UserError

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """Tensors of one checkpoint.

    Attributes:
        path: where they were found.
        format: in words.
        dialect: how they are named.
        shapes: shapes by the source's own names.
        read: gives a tensor by its own name, in its own type.
        sha256: of the file, or of all files of a checkpoint together.
        left_out: own name -> reason, for what the reader itself set aside.
        meta: what the checkpoint says about itself (classes, anchors), for our own.
    """

    path: Path
    format: str
    dialect: Dialect
    shapes: Shapes
    read: Callable[[str], Tensor]
    sha256: str
    left_out: dict[str, str] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


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
    # Late: the readers build on this module.
    from effdet_plugin.convert import archive, numpy_file, tf_source, torch_file
    from effdet_plugin.convert.hdf5 import MAGIC as HDF5_MAGIC
    from effdet_plugin.convert.hdf5 import open_hdf5

    path = Path(path)
    with damage_is_reported(path):
        prefix = tf_source.find_prefix(path)
        head = b'' if path.is_dir() or prefix else _head(path)
    if prefix is not None:
        yield tf_source.open_bundle(prefix)
    elif head.startswith(HDF5_MAGIC):
        with open_hdf5(path) as source:
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


@contextmanager
def damage_is_reported(path: Path) -> Iterator[None]:
    """Turn whatever a parser of a foreign format raises on damaged input into one line.

    zipfile, tarfile, numpy, h5py and torch raise a dozen types between them, none promised.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(
            f'{path}: no such file or folder, nor the name of a release (d0, d3-640, lite2, ...)'
        ) from error
    except Exception as error:
        reason = ' '.join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f'{path}: cut off or damaged, or not readable: {reason}') from error


def sha256(*paths: Path) -> str:
    """Hash of the files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open('rb') as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def _head(path: Path) -> bytes:
    with path.open('rb') as file:
        return file.read(tarfile.BLOCKSIZE)
