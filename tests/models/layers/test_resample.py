import pytest
import torch

from effdet_plugin.errors import ConfigError
from effdet_plugin.models.layers.resample import Resample


def test_resample__a_convolution_exactly_where_channels_differ() -> None:
    assert Resample(4, 4).conv is None
    assert Resample(4, 4).bn is None
    assert Resample(4, 8).conv is not None
    assert Resample(4, 8).bn is not None
    assert Resample(4, 8, apply_bn=False).bn is None


@pytest.mark.parametrize(('size', 'target'), [((9, 7), (5, 4)), ((5, 4), (9, 7)), ((1, 1), (1, 1))])
@pytest.mark.parametrize('pool_type', ['max', 'avg'])
def test_resample__hits_the_size(
    size: tuple[int, int], target: tuple[int, int], pool_type: str
) -> None:
    for after in (False, True):
        module = Resample(4, 8, conv_after_downsample=after, pool_type=pool_type).eval()
        assert module(torch.randn(2, 4, *size), target).shape == (2, 8, *target)


def test_resample__order_of_pool_and_convolution_matters_for_max_only() -> None:
    x = torch.randn(1, 4, 8, 8)
    for pool_type, is_equal in (('avg', True), ('max', False)):
        before = Resample(4, 2, pool_type=pool_type).eval()
        after = Resample(4, 2, pool_type=pool_type, conv_after_downsample=True).eval()
        after.load_state_dict(before.state_dict())
        assert torch.allclose(before(x, (4, 4)), after(x, (4, 4)), atol=1e-5) == is_equal


@pytest.mark.parametrize('target', [(2, 1), (2, 4), (5, 1)])
def test_resample__one_axis_down_the_other_not(target: tuple[int, int]) -> None:
    width = 1 if target != (5, 1) else 2
    with pytest.raises(ConfigError, match=f'3x{width} map to {target[0]}x{target[1]}') as error:
        Resample(4, 4)(torch.randn(1, 4, 3, width), target)
    assert '\n' not in str(error.value)


def test_resample__unknown_pooling() -> None:
    with pytest.raises(ValueError, match="pool_type='min'"):
        Resample(4, 4, pool_type='min')
