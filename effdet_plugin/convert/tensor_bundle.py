"""TensorFlow checkpoints without TensorFlow: an index table and raw data files.

Source: tensorflow/core/util/tensor_bundle and tensorflow/core/protobuf/tensor_bundle.proto.
``PREFIX.index`` maps each tensor's name to its type, shape and place in ``PREFIX.data-i-of-n``.
Everything is checked before it is believed: sizes against the files when the checkpoint is opened,
the checksum of a tensor when it is read.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from effdet_plugin.convert.crc32c import crc32c, masked
from effdet_plugin.convert.index_table import read_table
from effdet_plugin.convert.wire import Fields, blobs, messages, number, read_message, read_varint
from effdet_plugin.errors import CheckpointError

_MAX_INDEX_BYTES = 256 << 20
_STRING = 7
_DTYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    5: torch.int16,
    6: torch.int8,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    19: torch.float16,
}


@dataclass(frozen=True)
class BundleEntry:
    """Where and what a tensor is; ``dtype`` is TensorFlow's number, ``crc`` the masked checksum."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


class TensorBundle:
    """One checkpoint, opened and checked; tensors are read when asked for.

    Args:
        prefix: Path of the checkpoint without ``.index``.

    Raises:
        CheckpointError: A file is missing, cut off, damaged or of a kind that is not supported.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.index_path = prefix.with_name(prefix.name + '.index')
        try:
            table = read_table(_read_index(self.index_path))
            header = read_message(table.pop(b'', b''))
            self.shards = self._shard_paths(number(header, 1, 1))
            if number(header, 2):
                raise ValueError('its numbers are big-endian')
            self.entries = {key.decode('utf-8'): _entry(value) for key, value in table.items()}
        except ValueError as error:
            raise CheckpointError(
                f'{self.index_path}: not a readable TensorFlow checkpoint index: {error}'
            ) from error
        self._check_places()

    def read(self, name: str) -> Tensor:
        """The tensor ``name`` in its own type.

        Raises:
            CheckpointError: Its bytes do not fit its checksum, or its type is not supported.
        """
        entry = self.entries[name]
        data = self._bytes(name, entry)
        if masked(crc32c(data)) != entry.crc:
            raise self._damaged(name)
        flat = torch.frombuffer(bytearray(data), dtype=_DTYPES[entry.dtype]) if data else None
        empty = torch.empty(0, dtype=_DTYPES[entry.dtype])
        return (empty if flat is None else flat).reshape(entry.shape)

    def read_text(self, name: str) -> bytes:
        """The bytes of a string scalar.

        Raises:
            CheckpointError: It is no string scalar or does not fit its checksum.
        """
        entry = self.entries[name]
        if entry.dtype != _STRING or entry.shape != ():
            raise CheckpointError(f'{self.prefix}: {name} is not one string')
        data = self._bytes(name, entry)
        try:
            size, at = read_varint(data, 0)
        except ValueError as error:
            raise self._damaged(name) from error
        # The checksum covers the length as 32 bits, the stored checksum of that, and the string.
        covered = (size & 0xFFFFFFFF).to_bytes(4, 'little') + data[at:]
        if len(data) != at + 4 + size or masked(crc32c(covered)) != entry.crc:
            raise self._damaged(name)
        return data[at + 4 :]

    def _bytes(self, name: str, entry: BundleEntry) -> bytes:
        if entry.dtype != _STRING and entry.dtype not in _DTYPES:
            raise CheckpointError(
                f'{self.prefix}: {name} has a type ({entry.dtype}) without numbers'
            )
        with self.shards[entry.shard].open('rb') as file:
            file.seek(entry.offset)
            data = file.read(entry.size)
        if len(data) != entry.size:
            raise self._damaged(name)
        return data

    def _shard_paths(self, count: int) -> list[Path]:
        if not 1 <= count <= 100_000:
            raise ValueError(f'it names {count} data files')
        name = self.prefix.name
        return [
            self.prefix.with_name(f'{name}.data-{index:05d}-of-{count:05d}')
            for index in range(count)
        ]

    def _check_places(self) -> None:
        sizes = [path.stat().st_size if path.is_file() else -1 for path in self.shards]
        for name, entry in self.entries.items():
            if not 0 <= entry.shard < len(sizes):
                raise CheckpointError(f'{self.index_path}: {name} lies in no data file')
            if sizes[entry.shard] < 0:
                raise CheckpointError(f'{self.shards[entry.shard]}: the data file is missing')
            if entry.offset < 0 or not 0 <= entry.size <= sizes[entry.shard] - entry.offset:
                raise CheckpointError(
                    f'{self.shards[entry.shard]}: cut off: {name} should lie at bytes '
                    f'{entry.offset} to {entry.offset + entry.size} of {sizes[entry.shard]}'
                )
            _check_size(self.index_path, name, entry)

    def _damaged(self, name: str) -> CheckpointError:
        return CheckpointError(
            f'{self.prefix}: the data of {name} is damaged (checksum): get the file again'
        )


def _read_index(path: Path) -> bytes:
    if not path.is_file():
        raise CheckpointError(f'{path}: the index of the TensorFlow checkpoint is missing')
    if path.stat().st_size > _MAX_INDEX_BYTES:
        raise ValueError(f'it is larger than {_MAX_INDEX_BYTES >> 20} MB')
    return path.read_bytes()


def _entry(value: bytes) -> BundleEntry:
    fields = read_message(value)
    if fields.get(7):
        raise ValueError('it holds partitioned variables, which are not supported')
    return BundleEntry(
        dtype=number(fields, 1),
        shape=_shape(fields),
        shard=number(fields, 3),
        offset=number(fields, 4),
        size=number(fields, 5),
        crc=number(fields, 6),
    )


def _shape(fields: Fields) -> tuple[int, ...]:
    proto = read_message((blobs(fields, 2) or [b''])[-1])
    shape = tuple(number(dimension, 1) for dimension in messages(proto, 2))
    if number(proto, 3) or any(size < 0 for size in shape):
        raise ValueError('it holds a tensor of unknown shape')
    return shape


def _check_size(path: Path, name: str, entry: BundleEntry) -> None:
    if entry.dtype not in _DTYPES:
        return
    expected = math.prod(entry.shape) * _DTYPES[entry.dtype].itemsize
    if entry.size != expected:
        raise CheckpointError(f'{path}: {name} has {entry.size} bytes where {expected} are needed')
