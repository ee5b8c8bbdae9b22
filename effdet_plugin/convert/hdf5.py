"""Keras ``.h5`` weight files, through h5py (an extra)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effdet_plugin.convert import automl
from effdet_plugin.convert.architecture import Shapes
from effdet_plugin.convert.sources import Source, damage_is_reported, sha256
from effdet_plugin.errors import CheckpointError, InstallError

MAGIC = b'\x89HDF\r\n\x1a\n'
_MAX_RATIO = 1100  # of gzip, the filter that h5py writes


@contextmanager
def open_hdf5(path: Path) -> Iterator[Source]:
    """A source of the data sets of a Keras weight file (or of a whole Keras model).

    Raises:
        CheckpointError: The file is cut off or damaged.
        InstallError: h5py is not there.
    """
    h5py = _import_h5py(path)
    with damage_is_reported(path):
        file = h5py.File(path, 'r')
    with file:
        with damage_is_reported(path):
            paths = _dataset_paths(file, h5py)
            shapes: Shapes = {name: tuple(file[at].shape) for name, at in paths.items()}

        def read(name: str) -> Tensor:
            with damage_is_reported(path):
                value = file[paths[name]][()]
            return torch.from_numpy(np.asarray(value).reshape(shapes[name]))

        yield Source(path, 'Keras .h5', automl.DIALECT, shapes, read, sha256(path))


def _dataset_paths(file: Any, h5py: Any) -> dict[str, str]:
    """Variable name -> place: below each layer's group lie data sets by the full names."""
    paths: dict[str, str] = {}

    def visit(at: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        _check_storage(file.filename, at, item)
        in_layer = at.removeprefix('model_weights/')
        is_optimizer = at.startswith('optimizer_weights/')
        name = in_layer if is_optimizer else in_layer.partition('/')[2] or in_layer
        paths[name.removesuffix(':0')] = at

    file.visititems(visit)
    return paths


def _check_storage(filename: str, at: str, item: Any) -> None:
    """No data elsewhere, and no more of it than the file can hold."""
    stored = item.id.get_storage_size()
    if item.dtype.kind not in 'fiub' or item.is_virtual or item.external:
        raise CheckpointError(f'{filename}: {at} holds something else than plain numbers')
    if item.size * item.dtype.itemsize > _MAX_RATIO * stored:
        raise CheckpointError(f'{filename}: {at} claims more numbers than are stored')


def _import_h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise InstallError(
            f'{path}: reading .h5 needs h5py: pip install h5py (the extra effdet_plugin[h5])'
        ) from error
    return h5py
