import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from effdet_plugin.ops.resample import (
    avg_pool_same,
    max_pool_same,
    pool_to_size,
    resample_nearest,
    same_padding,
)

sides = st.integers(1, 40)


@given(size=sides, kernel=st.integers(1, 7), stride=st.integers(1, 4))
def test_same_padding__is_tensorflows(size: int, kernel: int, stride: int) -> None:
    before, after = same_padding(size, kernel, stride)
    assert 0 <= before <= after <= before + 1
    assert (size + before + after - kernel) // stride + 1 == -(-size // stride)


@given(height=sides, width=sides)
def test_max_pool__short_form_equals_padding_with_minus_infinity(height: int, width: int) -> None:
    x = torch.randn(1, 2, height, width) - 5  # zeros would win over these
    (top, bottom), (left, right) = (same_padding(side, 3, 2) for side in (height, width))
    padded = F.pad(x, (left, right, top, bottom), value=float('-inf'))
    pooled = max_pool_same(x, (3, 3), (2, 2))
    assert torch.equal(pooled, F.max_pool2d(padded, 3, 2))
    assert pooled.shape[-2:] == ((height + 1) // 2, (width + 1) // 2)


@given(height=sides, width=sides)
def test_avg_pool__a_constant_stays(height: int, width: int) -> None:
    pooled = avg_pool_same(torch.full((1, 1, height, width), 3.0), (3, 3), (2, 2))
    torch.testing.assert_close(pooled, torch.full_like(pooled, 3.0))


def test_nearest__source_index_of_every_halved_size() -> None:
    for size in range(1, 1025):
        small = (size + 1) // 2
        x = torch.arange(small, dtype=torch.float32).reshape(1, 1, 1, small)
        found = resample_nearest(x, (1, size)).flatten().long()
        assert torch.equal(found, torch.arange(size) * small // size), size


def test_nearest__same_size_is_no_copy() -> None:
    x = torch.randn(1, 1, 3, 4)
    assert resample_nearest(x, (3, 4)) is x
    assert pool_to_size(x, (3, 4)) is x


@pytest.mark.parametrize(
    ('size', 'target'), [((7, 7), (2, 2)), ((16, 12), (4, 3)), ((9, 9), (3, 4))]
)
def test_pool_to_size__other_strides(size: tuple[int, int], target: tuple[int, int]) -> None:
    pooled = pool_to_size(torch.randn(1, 1, *size), target)
    strides = [(s - 1) // t + 1 for s, t in zip(size, target, strict=True)]
    assert list(pooled.shape[-2:]) == [-(-s // n) for s, n in zip(size, strides, strict=True)]
