"""The index of a TensorFlow checkpoint: a sorted table of key -> protobuf message.

Source: LevelDB's table format, as in ``tensorflow/core/lib/io/table``: blocks of prefix-compressed
entries, each followed by a compression byte and a checksum, then one block of block addresses and a
footer. The reader is strict: blocks and footer must tile the file and every byte is covered by a
checksum or compared, so that a damaged index is refused, never partly read.

Malformed input raises ``ValueError``. Of protobuf's wire format there is only what this needs: a
message is a dict of field number -> list of raw values, in order.
"""

import struct
from importlib.util import find_spec
from itertools import pairwise

Fields = dict[int, list[int | bytes]]
Handle = tuple[int, int]  # offset and size of a block

_FOOTER_BYTES = 48
_TRAILER_BYTES = 5  # compression, checksum
_MAGIC = (0xDB4775248B80FB57).to_bytes(8, 'little')
_MASK_DELTA = 0xA282EAD8  # LevelDB stores checksums rotated and offset by this
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types


def can_check() -> bool:
    """Whether google-crc32c is installed, without which no checksum is checked."""
    return find_spec('google_crc32c') is not None


def is_intact(data: bytes, masked_crc: int) -> bool:
    """Whether data fits its checksum (CRC-32C, masked); True where `can_check` is not."""
    return not can_check() or mask(crc32c(data)) == masked_crc


def crc32c(data: bytes) -> int:
    """Return the checksum of TensorFlow's files; google-crc32c must be installed."""
    from google_crc32c import value

    crc: int = value(data)
    return crc


def mask(crc: int) -> int:
    """Return a checksum as LevelDB and TensorFlow store it."""
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def read_table(data: bytes) -> dict[bytes, bytes]:
    """Return all entries of a table, in the order of their keys.

    Raises:
        ValueError: The bytes are not an intact, uncompressed table.
    """
    meta, index = _read_footer(data)
    handles = []
    for _, value in _read_block(data, index):
        handle, at = _read_handle(value, 0)
        if at != len(value):
            raise ValueError('a block address is damaged')
        handles.append(handle)
    _check_tiling([*handles, meta, index], len(data) - _FOOTER_BYTES)
    _read_block(data, meta)
    entries = [entry for handle in handles for entry in _read_block(data, handle)]
    if any(left >= right for (left, _), (right, _) in pairwise(entries)):
        raise ValueError('its keys are not sorted')
    return dict(entries)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the varint at offset ``at`` and the offset behind it.

    Raises:
        ValueError: The data ends inside it, or it is longer than 64 bits.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError('data ends inside a number')
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError('a number is longer than 64 bits')


def write_varint(value: int) -> bytes:
    """Return the shortest varint of ``value`` (at least 0)."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_message(data: bytes) -> Fields:
    """Return the fields of one protobuf message; nested messages and text stay bytes.

    Raises:
        ValueError: The bytes are not a message.
    """
    fields: Fields = {}
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        value, at = _read_value(data, at, tag & 7)
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def number(fields: Fields, key: int, default: int = 0) -> int:
    """Return the last value of a scalar field, signed as protobuf's int64.

    Raises:
        ValueError: The field holds bytes.
    """
    value = fields.get(key, [default])[-1]
    if isinstance(value, bytes):
        raise ValueError(f'field {key} is not a number')
    return value - (1 << 64) if value >= 1 << 63 else value


def blobs(fields: Fields, key: int) -> list[bytes]:
    """Return all values of a length-delimited field: messages, or text.

    Raises:
        ValueError: One of them is a number.
    """
    values = [value for value in fields.get(key, []) if isinstance(value, bytes)]
    if len(values) != len(fields.get(key, [])):
        raise ValueError(f'field {key} is a number')
    return values


def _read_value(data: bytes, at: int, wire_type: int) -> tuple[int | bytes, int]:
    if wire_type == _VARINT:
        return read_varint(data, at)
    if wire_type == _BYTES:
        size, at = read_varint(data, at)
        if size > len(data) - at:
            raise ValueError('data ends inside a field')
        return data[at : at + size], at + size
    width = {_FIXED64: 8, _FIXED32: 4}.get(wire_type)
    if width is None or at + width > len(data):
        raise ValueError('not a protobuf message')
    return int.from_bytes(data[at : at + width], 'little'), at + width


def _read_footer(data: bytes) -> tuple[Handle, Handle]:
    if len(data) < _FOOTER_BYTES or data[-8:] != _MAGIC:
        raise ValueError('it does not end like an index table (cut off, or another file)')
    footer = data[-_FOOTER_BYTES:]
    meta, at = _read_handle(footer, 0)
    index, at = _read_handle(footer, at)
    # No checksum covers the footer, so it is compared with what a writer makes of its numbers.
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


def _read_handle(data: bytes, at: int) -> tuple[Handle, int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (offset, size), at


def _read_block(data: bytes, handle: Handle) -> list[tuple[bytes, bytes]]:
    offset, size = handle
    if offset + size + _TRAILER_BYTES > len(data):
        raise ValueError('a block lies outside the file')
    compression, checksum = struct.unpack_from('<BI', data, offset + size)
    if not is_intact(data[offset : offset + size + 1], checksum):
        raise ValueError('the checksum of a block is wrong')
    if compression != 0:
        raise ValueError('its blocks are compressed, which TensorFlow does not do by itself')
    return _read_entries(data[offset : offset + size])


def _read_entries(block: bytes) -> list[tuple[bytes, bytes]]:
    # Behind the entries: the offsets of restart points, which a sequential reader skips, and their
    # number.
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], 'little')
    if len(block) < 4 or end < 0:
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
