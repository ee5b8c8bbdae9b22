import random
import sys

import pytest
from tf_writer import write_table

from effdet_plugin.convert.tf_index import can_check, crc32c, is_intact, mask, read_table


# Vectors of RFC 3720, appendix B.4.
@pytest.mark.parametrize(
    ('data', 'expected'),
    [
        (bytes(32), 0x8A9136AA),
        (b'\xff' * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
        (b'123456789', 0xE3069283),
    ],
)
def test_crc32c__known_vectors(data: bytes, expected: int) -> None:
    assert crc32c(data) == expected


def test_mask__leveldb_example() -> None:
    crc = crc32c(b'foo')
    assert mask(crc) != crc
    assert mask(0) == 0xA282EAD8


def test_is_intact__a_flipped_bit_is_seen() -> None:
    data = random.randbytes(5000)
    stored = mask(crc32c(data))
    assert can_check()
    assert is_intact(data, stored)
    flipped = bytearray(data)
    flipped[4321] ^= 1
    assert not is_intact(bytes(flipped), stored)
    assert not is_intact(data, stored ^ 1)


def test_read_table__without_google_crc32c_only_checksums_are_not_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = {b'a/key': b'value', b'b/key': b'other'}
    table = bytearray(write_table(entries))
    table[table.index(b'value')] ^= 1
    with pytest.raises(ValueError, match='checksum'):
        read_table(bytes(table))
    monkeypatch.setitem(sys.modules, 'google_crc32c', None)
    assert not can_check()
    assert read_table(bytes(table)) == {**entries, b'a/key': b'walue'}
    with pytest.raises(ValueError, match='cut off'):
        read_table(bytes(table[:-1]))
