"""Reader of the sorted key -> value table in which TensorFlow keeps a checkpoint's index.

Source: LevelDB's table format, as in tensorflow/core/lib/io/table: blocks of prefix-compressed
entries, each followed by a compression byte and a checksum, then one block of block addresses and a
footer. The reader is strict: blocks and footer must tile the file and every byte is covered by a
checksum or compared, so a damaged index is refused, never half read.
"""

import struct
from itertools import pairwise

from effdet_plugin.convert.crc32c import crc32c, masked
from effdet_plugin.convert.wire import read_varint, write_varint

_FOOTER_BYTES = 48
_TRAILER_BYTES = 5  # compression, checksum
_MAGIC = (0xDB4775248B80FB57).to_bytes(8, 'little')

Handle = tuple[int, int]  # offset and size of a block


def read_table(data: bytes) -> dict[bytes, bytes]:
    """All entries of a table, in the order of their keys.

    Raises:
        ValueError: The bytes are not an intact, uncompressed table.
    """
    meta, index = _read_footer(data)
    handles = [_whole_handle(value) for _, value in _read_block(data, index)]
    _check_tiling([*handles, meta, index], len(data) - _FOOTER_BYTES)
    _read_block(data, meta)
    entries = [entry for handle in handles for entry in _read_block(data, handle)]
    if any(left >= right for (left, _), (right, _) in pairwise(entries)):
        raise ValueError('its keys are not sorted')
    return dict(entries)


def _read_footer(data: bytes) -> tuple[Handle, Handle]:
    if len(data) < _FOOTER_BYTES or data[-8:] != _MAGIC:
        raise ValueError('it does not end like an index table (cut off, or another file)')
    footer = data[-_FOOTER_BYTES:]
    meta, at = _read_handle(footer, 0)
    index, at = _read_handle(footer, at)
    handles = b''.join(write_varint(number) for number in (*meta, *index))
    if footer != handles.ljust(_FOOTER_BYTES - 8, b'\0') + _MAGIC:
        raise ValueError('its footer is damaged')
    return meta, index


def _check_tiling(handles: list[Handle], end: int) -> None:
    at = 0
    for offset, size in handles:
        if offset != at:
            raise ValueError('its blocks do not lie one behind the other')
        at += size + _TRAILER_BYTES
    if at != end:
        raise ValueError('its blocks do not fill the file')


def _whole_handle(value: bytes) -> Handle:
    handle, at = _read_handle(value, 0)
    if at != len(value):
        raise ValueError('a block address is damaged')
    return handle


def _read_handle(data: bytes, at: int) -> tuple[Handle, int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (offset, size), at


def _read_block(data: bytes, handle: Handle) -> list[tuple[bytes, bytes]]:
    offset, size = handle
    if offset + size + _TRAILER_BYTES > len(data):
        raise ValueError('a block lies outside the file')
    block = data[offset : offset + size]
    compression, checksum = struct.unpack_from('<BI', data, offset + size)
    if masked(crc32c(data[offset : offset + size + 1])) != checksum:
        raise ValueError('the checksum of a block is wrong')
    if compression != 0:
        raise ValueError('its blocks are compressed, which TensorFlow does not do by itself')
    return _read_entries(block)


def _read_entries(block: bytes) -> list[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise ValueError('a block is too short')
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], 'little')
    if end < 0:
        raise ValueError('a block is too short')
    entries, key, at = [], b'', 0
    while at < end:
        shared, at = read_varint(block, at)
        own, at = read_varint(block, at)
        size, at = read_varint(block, at)
        if shared > len(key) or own + size > end - at:
            raise ValueError('an entry lies outside its block')
        key = key[:shared] + block[at : at + own]
        entries.append((key, block[at + own : at + own + size]))
        at += own + size
    return entries
