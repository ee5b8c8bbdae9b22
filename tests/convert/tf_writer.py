"""Writes TensorFlow checkpoints as TensorFlow does, to try the reader on whole networks."""

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from effdet_plugin.convert.tf_index import crc32c, mask, write_varint

_DTYPES = {
    torch.float32: 1,
    torch.float64: 2,
    torch.int32: 3,
    torch.int64: 9,
    torch.bool: 10,
    torch.bfloat16: 14,
    torch.float16: 19,
}
GRAPH = '_CHECKPOINTABLE_OBJECT_GRAPH'


def varint_field(key: int, value: int) -> bytes:
    return write_varint(key << 3) + write_varint(value & (1 << 64) - 1)


def bytes_field(key: int, value: bytes) -> bytes:
    return write_varint(key << 3 | 2) + write_varint(len(value)) + value


def entry(
    dtype: int, shape: tuple[int, ...], shard: int, offset: int, data: bytes, crc: int
) -> bytes:
    """A BundleEntryProto."""
    dims = b''.join(bytes_field(2, varint_field(1, size) if size else b'') for size in shape)
    return (
        varint_field(1, dtype)
        + bytes_field(2, dims)
        + (varint_field(3, shard) if shard else b'')
        + (varint_field(4, offset) if offset else b'')
        + (varint_field(5, len(data)) if data else b'')
        + write_varint(6 << 3 | 5)
        + struct.pack('<I', mask(crc))
    )


def write_table(
    entries: Mapping[bytes, bytes], block_bytes: int = 4096, compression: int = 0
) -> bytes:
    """A LevelDB table with prefix-compressed blocks, restart points every 16 entries."""
    out = bytearray()

    def add(block: bytes) -> bytes:
        handle = write_varint(len(out)) + write_varint(len(block))
        sealed = block + bytes([compression])
        out.extend(sealed + struct.pack('<I', mask(crc32c(sealed))))
        return handle

    handles: dict[bytes, bytes] = {}
    pending: dict[bytes, bytes] = {}
    for key in sorted(entries):
        pending[key] = entries[key]
        if sum(map(len, pending.values())) > block_bytes:
            handles[key] = add(_block(pending))
            pending = {}
    if pending:
        handles[max(pending)] = add(_block(pending))
    footer = add(_block({}))
    footer += add(_block(handles))
    return bytes(out) + footer.ljust(40, b'\0') + (0xDB4775248B80FB57).to_bytes(8, 'little')


def _block(entries: Mapping[bytes, bytes], interval: int = 16) -> bytes:
    out, restarts, last = bytearray(), [0], b''
    for number, key in enumerate(sorted(entries)):
        shared = 0
        if number % interval == 0 and number:
            restarts.append(len(out))
        elif number:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        value = entries[key]
        out += write_varint(shared) + write_varint(len(key) - shared) + write_varint(len(value))
        out += key[shared:] + value
        last = key
    return bytes(out) + struct.pack(f'<{len(restarts) + 1}I', *restarts, len(restarts))


def write_bundle(
    prefix: Path,
    tensors: Mapping[str, Tensor],
    num_shards: int = 1,
    full_names: Mapping[str, str] | None = None,
) -> None:
    """A checkpoint; with ``full_names`` (key -> variable name) an object checkpoint."""
    shards = [bytearray() for _ in range(num_shards)]
    entries = {b'': varint_field(1, num_shards) + bytes_field(3, varint_field(1, 1))}
    for number, (name, value) in enumerate(sorted(tensors.items())):
        shard = shards[number % num_shards]
        data = (
            value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
            if value.numel()
            else b''
        )
        shape = tuple(value.shape)
        entries[name.encode()] = entry(
            _DTYPES[value.dtype], shape, number % num_shards, len(shard), data, crc32c(data)
        )
        shard += data
    if full_names is not None:
        graph = object_graph(full_names)
        size = np.uint32(len(graph)).tobytes()
        checksum = struct.pack('<I', mask(crc32c(size)))
        data = write_varint(len(graph)) + checksum + graph
        entries[GRAPH.encode()] = entry(
            7, (), 0, len(shards[0]), data, crc32c(size + checksum + graph)
        )
        shards[0] += data
    prefix.parent.mkdir(parents=True, exist_ok=True)
    prefix.with_name(prefix.name + '.index').write_bytes(write_table(entries))
    for number, shard in enumerate(shards):
        name = f'{prefix.name}.data-{number:05d}-of-{num_shards:05d}'
        prefix.with_name(name).write_bytes(bytes(shard))
    (prefix.parent / 'checkpoint').write_text(f'model_checkpoint_path: "/cns/run/{prefix.name}"\n')


def object_graph(full_names: Mapping[str, str]) -> bytes:
    """A TrackableObjectGraph with a node per variable."""
    nodes = (
        bytes_field(1, b'VARIABLE_VALUE')
        + bytes_field(2, full.encode())
        + bytes_field(3, key.encode())
        for key, full in full_names.items()
    )
    return b''.join(bytes_field(1, bytes_field(2, node)) for node in nodes)
