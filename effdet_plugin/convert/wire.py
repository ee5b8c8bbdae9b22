"""The two binary encodings inside TensorFlow checkpoints: varints and protobuf's wire format.

Only what a reader needs: a message becomes a dict of field number -> list of raw values, in order.
Malformed input raises ``ValueError``, which the callers turn into a ``CheckpointError``.
"""

Fields = dict[int, list[int | bytes]]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The varint at offset ``at`` and the offset behind it.

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
    """The shortest varint of ``value`` (at least 0)."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_message(data: bytes) -> Fields:
    """The fields of one protobuf message; nested messages and text stay bytes.

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
    """The last value of a scalar field, signed as protobuf's int64.

    Raises:
        ValueError: The field holds bytes.
    """
    value = fields.get(key, [default])[-1]
    if isinstance(value, bytes):
        raise ValueError(f'field {key} is not a number')
    return value - (1 << 64) if value >= 1 << 63 else value


def messages(fields: Fields, key: int) -> list[Fields]:
    """All values of a repeated message field."""
    return [read_message(value) for value in blobs(fields, key)]


def blobs(fields: Fields, key: int) -> list[bytes]:
    """All values of a length-delimited field.

    Raises:
        ValueError: One of them is a number.
    """
    values = fields.get(key, [])
    if not all(isinstance(value, bytes) for value in values):
        raise ValueError(f'field {key} is a number')
    return [value for value in values if isinstance(value, bytes)]


def text(fields: Fields, key: int) -> str:
    """The last value of a string field, '' without one."""
    return (blobs(fields, key) or [b''])[-1].decode('utf-8')


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
