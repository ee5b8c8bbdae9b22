import random

import pytest

from effdet_plugin.convert.crc32c import crc32c, masked


def _by_the_byte(data: bytes, value: int = 0) -> int:
    register = value ^ 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


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


@pytest.mark.parametrize('size', [0, 1, 1023, 1024, 1025, 4097, 16384, 70001])
def test_crc32c__lanes_equal_the_bitwise_form(size: int) -> None:
    data = random.randbytes(size)
    assert crc32c(data) == _by_the_byte(data)


def test_crc32c__continues() -> None:
    data = random.randbytes(9000)
    assert crc32c(data[4000:], crc32c(data[:4000])) == crc32c(data)


def test_masked__leveldb_example() -> None:
    crc = crc32c(b'foo')
    assert masked(crc) != crc
    assert masked(0) == 0xA282EAD8
