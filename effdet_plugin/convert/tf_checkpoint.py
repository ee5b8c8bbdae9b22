"""TensorFlow checkpoints without TensorFlow: an index table and raw data files.

Source: ``tensorflow/core/util/tensor_bundle`` and ``tensorflow/core/protobuf/tensor_bundle.proto``.
``PREFIX.index`` maps each tensor's name to its type, shape and place in ``PREFIX.data-i-of-n``.
Everything is checked before it is believed: sizes against the files when the checkpoint is opened,
the checksum of a tensor when it is read.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from effdet_plugin.convert.key_map_tensorflow import (
    AVERAGE,
    OBJECT_ROOTS,
    OBJECTS,
    VARIABLE_ROOTS,
    VARIABLES,
)
from effdet_plugin.convert.sources import Source
from effdet_plugin.convert.tf_index import (
    blobs,
    can_check,
    is_intact,
    number,
    read_message,
    read_table,
    read_varint,
)
from effdet_plugin.errors import CheckpointError
from effdet_plugin.files import sha256

GRAPH = '_CHECKPOINTABLE_OBJECT_GRAPH'
_VALUE = '/.ATTRIBUTES/VARIABLE_VALUE'
_SLOT = '/.OPTIMIZER_SLOT/'
_DATA_FILE = re.compile(r'\.data-\d{5}-of-\d{5}$')
_MAX_STATE_BYTES = 1 << 20
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
        self.index = prefix.with_name(f'{prefix.name}.index')
        if not self.index.is_file():
            raise CheckpointError(f'{self.index.name} is missing, the index of the checkpoint')
        if self.index.stat().st_size > _MAX_INDEX_BYTES:
            raise CheckpointError(f'{self.index.name} is larger than {_MAX_INDEX_BYTES >> 20} MB')
        try:
            table = read_table(self.index.read_bytes())
            header = read_message(table.pop(b'', b''))
            count = number(header, 1, 1)
            if not 1 <= count <= 100_000:
                raise ValueError(f'it names {count} data files')
            if number(header, 2):
                raise ValueError('its numbers are big-endian')
            self.entries = {key.decode('utf-8'): _entry(value) for key, value in table.items()}
        except ValueError as error:
            raise CheckpointError(
                f'{self.index.name} is not a readable index of a TensorFlow checkpoint: {error}'
            ) from error
        self.shards = [
            prefix.with_name(f'{prefix.name}.data-{index:05d}-of-{count:05d}')
            for index in range(count)
        ]
        sizes = [path.stat().st_size if path.is_file() else -1 for path in self.shards]
        for name, entry in self.entries.items():
            self._check_place(name, entry, sizes)

    def read(self, name: str) -> Tensor:
        """Return the tensor ``name`` in its own type.

        Raises:
            CheckpointError: Its bytes do not fit its checksum, or its type is not supported.
        """
        entry = self.entries[name]
        if entry.dtype not in _DTYPES:
            raise CheckpointError(f'{name} has a type ({entry.dtype}) without numbers')
        data = self._bytes(name, entry)
        if not is_intact(data, entry.crc):
            raise _damaged(name)
        dtype = _DTYPES[entry.dtype]
        # frombuffer takes no empty buffer, and wants one that may be written to.
        flat = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0).to(dtype)
        return flat.reshape(entry.shape)

    def read_text(self, name: str) -> bytes:
        """Return the bytes of a string scalar.

        Raises:
            CheckpointError: It is no string scalar or does not fit its checksum.
        """
        entry = self.entries[name]
        if entry.dtype != _STRING or entry.shape != ():
            raise CheckpointError(f'{name} is not one string')
        data = self._bytes(name, entry)
        try:
            size, at = read_varint(data, 0)
        except ValueError as error:
            raise _damaged(name) from error
        # The checksum covers the length as 32 bits, the stored checksum of that, and the string.
        covered = (size & 0xFFFFFFFF).to_bytes(4, 'little') + data[at:]
        if len(data) != at + 4 + size or not is_intact(covered, entry.crc):
            raise _damaged(name)
        return data[at + 4 :]

    def _bytes(self, name: str, entry: BundleEntry) -> bytes:
        with self.shards[entry.shard].open('rb') as file:
            file.seek(entry.offset)
            data = file.read(entry.size)
        if len(data) != entry.size:
            raise _damaged(name)
        return data

    def _check_place(self, name: str, entry: BundleEntry, sizes: list[int]) -> None:
        if not 0 <= entry.shard < len(sizes):
            raise CheckpointError(f'{self.index.name}: {name} lies in no data file')
        file, size = self.shards[entry.shard].name, sizes[entry.shard]
        if size < 0:
            raise CheckpointError(f'{file} is missing, a data file of the checkpoint')
        if entry.offset < 0 or not 0 <= entry.size <= size - entry.offset:
            raise CheckpointError(
                f'{file} is cut off: {name} should lie at bytes {entry.offset} to '
                f'{entry.offset + entry.size} of {size}'
            )
        if entry.dtype in _DTYPES:
            expected = math.prod(entry.shape) * _DTYPES[entry.dtype].itemsize
            if entry.size != expected:
                raise CheckpointError(
                    f'{self.index.name}: {name} has {entry.size} bytes where {expected} are needed'
                )


def find_prefix(path: Path) -> Path | None:
    """Return the prefix of the checkpoint that a path stands for; None for another format.

    Args:
        path: folder, prefix, ``.index``, ``.data-…`` or ``checkpoint``.

    Raises:
        CheckpointError: A folder without a checkpoint, or with several and none marked as current.
    """
    if path.is_dir():
        return _prefix_in(path)
    if path.suffix == '.index' or _DATA_FILE.search(path.name):
        return path.with_name(_DATA_FILE.sub('', path.name).removesuffix('.index'))
    if path.name == 'checkpoint' and path.is_file():
        return _prefix_in(path.parent)
    if not path.is_file() and path.with_name(path.name + '.index').is_file():
        return path
    return None


def open_tf(prefix: Path) -> Source:
    """Open a TF1 or TF2 checkpoint.

    Raises:
        CheckpointError: It is damaged, or incomplete.
    """
    bundle = TensorBundle(prefix)
    is_object_based = GRAPH in bundle.entries
    keys = _object_keys(bundle) if is_object_based else {name: name for name in bundle.entries}
    has_variable_names = all(
        not _is_variable(key) or re.search(rf'(^|/)({VARIABLE_ROOTS})/', name)
        for name, key in keys.items()
    )
    by_path = is_object_based and not has_variable_names
    if by_path:
        keys = {_path_name(key): key for key in keys.values()}
    unchecked = 'checksums were not checked: pip install google-crc32c (effdet_plugin[tf])'
    return Source(
        path=prefix,
        format='TF2 object checkpoint' if is_object_based else 'TF1 checkpoint',
        key_map=OBJECTS if by_path else VARIABLES,
        shapes={name: bundle.entries[key].shape for name, key in keys.items()},
        read=lambda name: bundle.read(keys[name]),
        sha256=sha256(bundle.index, *bundle.shards),
        left_out={GRAPH: 'the graph of objects, read for the names'} if is_object_based else {},
        note='' if can_check() else unchecked,
    )


def _entry(value: bytes) -> BundleEntry:
    fields = read_message(value)
    if fields.get(7):
        raise ValueError('it holds partitioned variables, which are not supported')
    proto = read_message((blobs(fields, 2) or [b''])[-1])
    shape = tuple(number(read_message(dimension), 1) for dimension in blobs(proto, 2))
    if number(proto, 3) or any(size < 0 for size in shape):
        raise ValueError('it holds a tensor of unknown shape')
    dtype, shard, offset, size, crc = (number(fields, key) for key in (1, 3, 4, 5, 6))
    return BundleEntry(dtype, shape, shard, offset, size, crc)


def _damaged(name: str) -> CheckpointError:
    return CheckpointError(f'the data of {name} is damaged (checksum): get the file again')


def _prefix_in(folder: Path) -> Path:
    names = sorted(path.name.removesuffix('.index') for path in folder.glob('*.index'))
    current = _current_name(folder / 'checkpoint')
    if current in names:
        return folder / current
    if len(names) == 1:
        return folder / names[0]
    if names:
        raise CheckpointError(
            f'several checkpoints ({", ".join(names[:5])}): name one of them, as a path'
        )
    raise CheckpointError('no TensorFlow checkpoint (an .index file) in this folder')


def _current_name(state_file: Path) -> str:
    """Return the checkpoint that TensorFlow's `checkpoint` file points to, '' without."""
    if not state_file.is_file() or state_file.stat().st_size > _MAX_STATE_BYTES:
        return ''
    content = state_file.read_text(encoding='utf-8', errors='replace')
    found = re.search(r'^model_checkpoint_path:\s*"(.*)"', content, re.MULTILINE)
    return re.split(r'[/\\]', found.group(1))[-1] if found else ''


def _object_keys(bundle: TensorBundle) -> dict[str, str]:
    """Return name -> key of every tensor of an object checkpoint.

    A variable has its full name where the graph of objects tells one, and the path of its
    attributes otherwise; a slot of the optimizer has its variable's name and the slot's behind it.
    """
    graph = read_message(bundle.read_text(GRAPH))
    nodes = [read_message(node) for node in blobs(graph, 1)]
    attributes = [read_message(attribute) for node in nodes for attribute in blobs(node, 2)]
    full_names = {_text(attribute, 3): _text(attribute, 2) for attribute in attributes}
    keys: dict[str, str] = {}
    for key in bundle.entries:
        if key == GRAPH:
            continue
        variable, _, slot = key.partition(_SLOT)
        full_name = full_names.get(variable + _VALUE if slot else key, '')
        is_named = _is_variable(key) and full_name
        name = full_name + _slot_suffix(slot) if is_named else _path_name(key)
        if name in keys:
            raise CheckpointError(f'two variables have the name {name}')
        keys[name] = key
    return keys


def _text(fields: dict[int, list[int | bytes]], key: int) -> str:
    return (blobs(fields, key) or [b''])[-1].decode('utf-8')


def _path_name(key: str) -> str:
    variable, _, slot = key.removesuffix(_VALUE).partition(_SLOT)
    return variable + _slot_suffix(slot)


def _slot_suffix(slot: str) -> str:
    """Return what stands behind a variable's name for a slot such as ``optimizer/momentum``."""
    name = slot.removesuffix(_VALUE).rpartition('/')[2]
    if not name:
        return ''
    # The slot of a moving-average optimizer holds what TF1 has as a variable of its own.
    return AVERAGE if name == 'average' else f'/{name}'


def _is_variable(key: str) -> bool:
    """Whether a key is of the network (and not of the optimizer or a counter)."""
    return re.search(rf'(^|/)({OBJECT_ROOTS})/', key) is not None
