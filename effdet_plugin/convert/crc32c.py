"""CRC-32C (Castagnoli), the checksum of TensorFlow's checkpoint files, in numpy.

A checkpoint holds hundreds of megabytes, too many for a Python loop over bytes. The checksum is
linear over GF(2): the bytes are cut into equally long lanes, all lanes advance together four bytes
at a time, and neighbours are joined by shifting the left one over the right one's length.
"""

from functools import cache

import numpy as np

_POLYNOMIAL = 0x82F63B78  # reflected
_MASK_DELTA = 0xA282EAD8  # LevelDB stores checksums rotated and offset by this
_SERIAL_BYTES = 1024  # below this the Python loop is faster than the lanes


def crc32c(data: bytes | memoryview, value: int = 0) -> int:
    """Checksum of ``data``, continuing from the checksum ``value`` of what came before."""
    register = value ^ 0xFFFFFFFF
    rest = memoryview(data).cast('B')
    while len(rest) >= _SERIAL_BYTES:
        lane_bytes = 1 << min(max(len(rest).bit_length() // 2, 6), 12)
        lanes = 1 << min((len(rest) // lane_bytes).bit_length() - 1, 14)
        register = _lanes(register, rest[: lanes * lane_bytes], lanes)
        rest = rest[lanes * lane_bytes :]
    table = _byte_table()[1]
    for byte in rest:
        register = table[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    """The form in which LevelDB and TensorFlow store a checksum."""
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _lanes(register: int, data: memoryview, lanes: int) -> int:
    words = np.frombuffer(data, '<u4').reshape(lanes, -1).T.copy()  # (words per lane, lanes)
    low, high = _word_tables()
    state = np.zeros(lanes, np.uint32)
    state[0] = register
    for column in words:
        state ^= column
        state = low[state & 0xFFFF] ^ high[state >> 16]
    shift = (4 * len(words)).bit_length() - 1
    while len(state) > 1:
        state = _apply(_shift_tables(shift), state[0::2]) ^ state[1::2]
        shift += 1
    return int(state[0])


@cache
def _byte_table() -> tuple[np.ndarray, list[int]]:
    table: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> 1) ^ np.where(table & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return table, table.tolist()


@cache
def _word_tables() -> tuple[np.ndarray, np.ndarray]:
    """State after four zero bytes, by the low and the high half of the state before."""
    halves = np.arange(65536, dtype=np.uint32)
    return _zero_bytes(halves, 4), _zero_bytes(halves << np.uint32(16), 4)


def _zero_bytes(state: np.ndarray, count: int) -> np.ndarray:
    table = _byte_table()[0]
    for _ in range(count):
        state = table[state & 0xFF] ^ (state >> 8)
    return state


@cache
def _shift_tables(power: int) -> np.ndarray:
    """State after ``2 ** power`` zero bytes, by each of its four bytes before: (4, 256)."""
    single = np.arange(256, dtype=np.uint32) << (8 * np.arange(4, dtype=np.uint32))[:, None]
    if power == 0:
        return _zero_bytes(single, 1)
    half = _shift_tables(power - 1)
    return _apply(half, half)


def _apply(tables: np.ndarray, state: np.ndarray) -> np.ndarray:
    low = tables[0][state & 0xFF] ^ tables[1][state >> 8 & 0xFF]
    return low ^ tables[2][state >> 16 & 0xFF] ^ tables[3][state >> 24]
