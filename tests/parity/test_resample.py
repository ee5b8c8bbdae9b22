"""SAME padding, resampling between levels and the next coarser level, every stored case."""

import re

import pytest
import torch
from ladder import difference, nchw, nhwc
from timm.layers import create_conv2d
from torch import Tensor, nn

import support
from effdet_plugin.errors import ConfigError
from effdet_plugin.models import BiFPN
from effdet_plugin.models.layers.resample import Resample

LIMIT = 1e-6
ARRAYS = support.load_oracle('pad_resample')
CONVOLUTIONS = sorted(name for name in ARRAYS if name.startswith(('conv_', 'depthwise_')))
CASES = sorted(name for name in ARRAYS if re.match(r'resample_\d', name))
EXTRAS = sorted(name for name in ARRAYS if re.fullmatch(r'extra_\d+x\d+', name))

OPTIONS = {
    '': {},
    '_after': dict(conv_after_downsample=True),
    '_nobn': dict(apply_bn=False),
    '_avg': dict(pool_type='avg'),
}


def numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r'\d+', text)]


@pytest.mark.parametrize('name', CONVOLUTIONS)
def test_convolution__timms_same_padding_is_the_references(name: str) -> None:
    make = support.recipe().normalish
    kind, case = name.split('_')
    height, width, kernel, stride = numbers(case)
    is_depthwise = kind == 'depthwise'
    conv = create_conv2d(
        3, 3 if is_depthwise else 4, kernel, stride=stride, padding='same', depthwise=is_depthwise
    )
    shape = (kernel, kernel, 3, 1 if is_depthwise else 4)
    key = f'pad:{"depthwise" if is_depthwise else "kernel"}:{case}'
    weight = torch.from_numpy(make(key, shape, 0.3))
    conv.weight.data = weight.permute((2, 3, 0, 1) if is_depthwise else (3, 2, 0, 1)).contiguous()
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    images = nchw(make(f'pad:x:{case}', (2, height, width, 3)))
    assert difference(ARRAYS, name, nhwc(conv(images))) < LIMIT


def fill(module: Resample, case: str) -> Resample:
    """The recipe's weights of a case."""

    def value(leaf: str, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(support.recipe().value('none', f'resample_{case}/{leaf}', shape))

    state = {}
    if module.conv is not None:
        outs, ins = module.conv.weight.shape[:2]
        kernel = value('conv2d/kernel', (1, 1, ins, outs))
        state['conv.weight'] = kernel.permute(3, 2, 0, 1)
        state['conv.bias'] = value('conv2d/bias', (outs,))
    if module.bn is not None:
        leaves = dict(
            weight='gamma', bias='beta', running_mean='moving_mean', running_var='moving_variance'
        )
        outs = module.bn.num_features
        state.update({f'bn.{own}': value(f'bn/{leaf}', (outs,)) for own, leaf in leaves.items()})
        state['bn.num_batches_tracked'] = torch.tensor(0)
    module.load_state_dict(state)
    return module.eval()


@pytest.mark.parametrize('name', CASES)
def test_resample__every_case(name: str) -> None:
    case, suffix = re.fullmatch(r'resample_(.*?)((?:_after|_nobn|_avg)?)', name).groups()  # type: ignore[union-attr]
    height, width, ins, *size, outs = numbers(case)
    module = fill(Resample(ins, outs, **OPTIONS[suffix]), case)  # type: ignore[arg-type]
    x = nchw(support.recipe().normalish(f'resample:x:{case}', (2, height, width, ins), 1.0, -2.0))
    assert difference(ARRAYS, name, nhwc(module(x, (size[0], size[1])))) < LIMIT


def next_level(height: int, width: int) -> Tensor:
    """The level above a map of four channels, as the neck makes it."""
    x = nchw(support.recipe().normalish(f'extra:x:{height}x{width}', (1, height, width, 4)))
    return BiFPN([4], out_channels=4, num_outs=2, num_cells=1).add_levels([x])[1]


@pytest.mark.parametrize('name', EXTRAS)
def test_next_level__every_size(name: str) -> None:
    height, width = numbers(name)
    assert difference(ARRAYS, name, nhwc(next_level(height, width))) == 0.0


def test_next_level__refuses_what_the_reference_refuses() -> None:
    assert 'feat shape 3x1 target_shape: 2x1' in str(ARRAYS['extra_3x1_error'])
    with pytest.raises(ConfigError, match='3x1 map to 2x1'):
        next_level(3, 1)
