"""``.npz`` of TensorFlow variable name -> array, written with numpy by whoever has TensorFlow."""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from effdet_plugin.convert import automl
from effdet_plugin.convert.sources import Source, damage_is_reported, sha256
from effdet_plugin.errors import CheckpointError

# Deflate cannot do better: more is not a file but a bomb.
_MAX_RATIO = 1100


@contextmanager
def open_npz(path: Path) -> Iterator[Source]:
    """A source of the arrays of an ``.npz``; ``|`` in names stands for ``/``.

    Raises:
        CheckpointError: The file is damaged, or holds something else than plain arrays.
    """
    with damage_is_reported(path):
        file = zipfile.ZipFile(path)
    with file:
        with damage_is_reported(path):
            members = {_name(info.filename): info for info in file.infolist()}
            if len(members) != len(file.infolist()):
                raise CheckpointError(f'{path}: it holds two arrays of one name')
            if sum(info.file_size for info in members.values()) > _MAX_RATIO * path.stat().st_size:
                raise CheckpointError(f'{path}: it claims to unpack to more than is possible')
            shapes = {name: _read_header(file, info)[0] for name, info in members.items()}

        def read(name: str) -> Tensor:
            with damage_is_reported(path):
                return _read_array(file, members[name])

        yield Source(path, '.npz by TensorFlow names', automl.DIALECT, shapes, read, sha256(path))


def _name(filename: str) -> str:
    return filename.removesuffix('.npy').replace('|', '/')


def _read_header(
    file: zipfile.ZipFile, info: zipfile.ZipInfo
) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether Fortran order, type and header length of an array, checked by its size."""
    with file.open(info) as member:
        version = np.lib.format.read_magic(member)
        read = {(1, 0): np.lib.format.read_array_header_1_0}
        read[(2, 0)] = np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read[version](member)
        start = member.tell()
    if dtype.hasobject or dtype.kind not in 'fiub':
        raise CheckpointError(f'{file.filename}: {info.filename} holds {dtype}, not plain numbers')
    if start + math.prod(shape) * dtype.itemsize != info.file_size:
        raise CheckpointError(f'{file.filename}: {info.filename} is cut off')
    return shape, is_fortran, dtype, start


def _read_array(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    shape, is_fortran, dtype, start = _read_header(file, info)
    flat = np.frombuffer(file.read(info), dtype, offset=start).astype(dtype.newbyteorder('='))
    return torch.from_numpy(flat.reshape(shape, order='F' if is_fortran else 'C').copy())
