"""Files of named arrays: ``.npz`` of TensorFlow's variables, and Keras ``.h5`` (through h5py)."""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effdet_plugin.convert.key_map_tensorflow import VARIABLES
from effdet_plugin.convert.networks import Shape
from effdet_plugin.convert.sources import Source
from effdet_plugin.errors import CheckpointError, InstallError
from effdet_plugin.files import sha256

HDF5_MAGIC = b'\x89HDF\r\n\x1a\n'
# Deflate, which both formats use, cannot do better: a file that claims more is a bomb.
_MAX_RATIO = 1100


@contextmanager
def open_npz(path: Path) -> Iterator[Source]:
    """Open an ``.npz`` of TensorFlow variable name -> array; ``|`` in names stands for ``/``.

    Raises:
        CheckpointError: It holds something else than plain arrays.
    """
    with zipfile.ZipFile(path) as file:
        infos = file.infolist()
        members = {info.filename.removesuffix('.npy').replace('|', '/'): info for info in infos}
        if len(members) != len(infos):
            raise CheckpointError('it holds two arrays of one name')
        if sum(info.file_size for info in infos) > _MAX_RATIO * path.stat().st_size:
            raise CheckpointError('it claims to unpack to more than is possible')
        shapes = {name: _checked_shape(file, info) for name, info in members.items()}

        def read(name: str) -> Tensor:
            with file.open(members[name]) as member:
                array = np.lib.format.read_array(member, allow_pickle=False)
            # torch takes neither Fortran order nor foreign byte order.
            native = array.astype(array.dtype.newbyteorder('='), order='C', copy=False)
            return torch.from_numpy(native)

        yield Source(path, '.npz by TensorFlow names', VARIABLES, shapes, read, sha256(path))


@contextmanager
def open_hdf5(path: Path) -> Iterator[Source]:
    """Open a Keras weight file, or a whole Keras model.

    Raises:
        CheckpointError: It holds something else than plain arrays.
        InstallError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise InstallError(
            f'{path}: reading .h5 needs h5py: pip install h5py (the extra effdet_plugin[h5])'
        ) from error
    datasets: dict[str, Any] = {}

    def visit(at: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            _check_storage(at, item)
            datasets[_variable_name(at)] = item

    with h5py.File(path, 'r') as file:
        file.visititems(visit)
        shapes = {name: tuple(item.shape) for name, item in datasets.items()}

        def read(name: str) -> Tensor:
            return torch.from_numpy(np.asarray(datasets[name][()]).reshape(shapes[name]))

        yield Source(path, 'Keras .h5', VARIABLES, shapes, read, sha256(path))


def _checked_shape(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Shape:
    """Return the shape of an array, which its size in the file must fit: nothing is allocated."""
    with file.open(info) as member:
        version = np.lib.format.read_magic(member)
        read = {(1, 0): np.lib.format.read_array_header_1_0}
        read[2, 0] = np.lib.format.read_array_header_2_0
        shape, _, dtype = read[version](member)
        start = member.tell()
    if dtype.hasobject or dtype.kind not in 'fiub':
        raise CheckpointError(f'{info.filename} holds {dtype}, not plain numbers')
    if start + math.prod(shape) * dtype.itemsize != info.file_size:
        raise CheckpointError(f'{info.filename} is cut off')
    return shape


def _variable_name(at: str) -> str:
    """Return the full name that stands below each layer's group: ``LAYER/NAME:0``."""
    in_layer = at.removeprefix('model_weights/')
    is_optimizer = at.startswith('optimizer_weights/')
    name = in_layer if is_optimizer else in_layer.partition('/')[2] or in_layer
    return name.removesuffix(':0')


def _check_storage(at: str, item: Any) -> None:
    """Refuse data in other files, and more of it than this file can hold."""
    if item.dtype.kind not in 'fiub' or item.is_virtual or item.external:
        raise CheckpointError(f'{at} holds something else than plain numbers')
    if item.size * item.dtype.itemsize > _MAX_RATIO * item.id.get_storage_size():
        raise CheckpointError(f'{at} claims more numbers than are stored')
