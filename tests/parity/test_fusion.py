"""Fusion of maps by every method: values, and gradients of the weights."""

import pytest
import torch
from ladder import difference, nchw, nhwc

import support
from effdet_plugin.models.layers.fusion import Fusion

LIMIT = 1e-6
GRADIENT_LIMIT = 1e-5
ARRAYS = support.load_oracle('fusion')
SETS = sorted(name.removeprefix('weights_') for name in ARRAYS if name.startswith('weights_'))
METHODS = dict(
    attn='attn',
    fastattn='fast_attn',
    channel_attn='channel_attn',
    channel_fastattn='channel_fast_attn',
    sum='sum',
)


def fusion(method: str, name: str) -> Fusion:
    """The module with the weights of a set; those of channels are spread around them."""
    weights = ARRAYS[f'weights_{name}']
    module = Fusion(len(weights), METHODS[method], channels=6)
    if module.weights is not None:
        value = torch.from_numpy(weights)
        if method.startswith('channel'):
            make = support.recipe().normalish
            rows = [make(f'fusion:w:{name}:{i}', (6,), 0.6, w) for i, w in enumerate(weights)]
            value = torch.stack([torch.from_numpy(row) for row in rows])
        module.load_state_dict({'weights': value})
    return module


@pytest.mark.parametrize('name', SETS)
@pytest.mark.parametrize('method', METHODS)
def test_fusion__values_and_gradients(method: str, name: str) -> None:
    module = fusion(method, name)
    make = support.recipe().normalish
    count = len(ARRAYS[f'weights_{name}'])
    fused = module([nchw(make(f'fusion:{name}:{i}', (2, 3, 5, 6))) for i in range(count)])
    assert difference(ARRAYS, f'{method}_{name}', nhwc(fused)) < LIMIT
    if method == 'sum':
        assert f'{method}_{name}_dw' not in ARRAYS
        return
    assert module.weights is not None
    total = fused.square().sum()
    (gradient,) = torch.autograd.grad(total, module.weights)
    # With one positive weight its gradient is all but cancelled: rounding stays that of the terms.
    expected = torch.from_numpy(ARRAYS[f'{method}_{name}_dw'])
    scale = max(expected.abs().max().item(), 2 * total.item())
    assert (gradient - expected).abs().max().item() <= GRADIENT_LIMIT * scale


def test_fusion__all_negative_is_exactly_zero() -> None:
    module = fusion('fastattn', 'all_negative')
    fused = module([torch.randn(1, 6, 2, 2) for _ in range(3)])
    assert not fused.any()
