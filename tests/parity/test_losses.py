"""Focal, Huber and IoU losses with their gradients."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ladder import difference, swap
from torch import Tensor

import support
from effdet_plugin.models import BoxIoULoss, HuberLoss, SigmoidFocalLoss
from effdet_plugin.ops import sigmoid_focal_loss

ARRAYS = support.load_oracle('losses')
LIMIT = 1e-6
NORMALISER = 7.0
FOCAL = sorted(name for name in ARRAYS if re.fullmatch(r'focal_a[\d.]+_g[\d.]+_s[\d.]+', name))


def with_gradient(x: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    value = loss(x)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


@pytest.mark.parametrize('name', FOCAL)
def test_focal__elements_gradients_and_sum(name: str) -> None:
    alpha, gamma, smoothing = (float(x) for x in re.findall(r'_[ags]([\d.]+)', name))
    make = support.recipe()
    shape = (2, 4, 4, 27)
    logits = torch.from_numpy(make.normalish('focal:x', shape, 3, -1)).reshape(-1, 1)
    # The targets are not one class of many but any: each element is a row of one class.
    labels = torch.from_numpy(np.where(make.uniform('focal:t', shape) > 0.9, 0, 1)).reshape(-1)
    loss = SigmoidFocalLoss(
        True, alpha=alpha, gamma=gamma, label_smoothing=smoothing, reduction='none'
    )
    value, gradient = with_gradient(logits, lambda x: loss(x, labels) / NORMALISER)
    assert difference(ARRAYS, name, value.reshape(shape)) < LIMIT
    assert difference(ARRAYS, f'{name}_grad', gradient.reshape(shape)) < LIMIT
    total = loss(logits, labels, avg_factor=NORMALISER, reduction_override='mean')
    assert difference(ARRAYS, f'{name}_sum', total) < LIMIT


@pytest.mark.parametrize('is_positive', [False, True])
def test_focal__extreme_logits(is_positive: bool) -> None:
    logits = torch.tensor([-100.0, -30, -10, 0, 10, 30, 100]).reshape(-1, 1)
    labels = torch.full((7,), 0 if is_positive else 1)
    value, gradient = with_gradient(logits, lambda x: sigmoid_focal_loss(x, labels))
    name = f'focal_extreme_y{int(is_positive)}'
    # Relative to each: the reference's own 1 - p_t has lost three digits at |x| = 10.
    for own, key in ((value, name), (gradient, f'{name}_grad')):
        np.testing.assert_allclose(own.flatten(), ARRAYS[key], rtol=1e-3, atol=1e-30)


@pytest.mark.parametrize('delta', ['0.1', '1'])
def test_huber__sum_and_gradient(delta: str) -> None:
    make = support.recipe()
    shape = (2, 4, 4, 36)
    outputs = torch.from_numpy(make.normalish('huber:out', shape, 0.3))
    mask = make.uniform('huber:mask', shape) > 0.4
    targets = torch.from_numpy(make.normalish('huber:target', shape, 0.3) * mask)
    loss = HuberLoss(delta=float(delta))
    weight = (targets != 0).float()
    value, gradient = with_gradient(
        outputs, lambda x: loss(x, targets, weight, avg_factor=4 * NORMALISER)
    )
    assert difference(ARRAYS, f'huber_d{delta}', value) < LIMIT
    assert difference(ARRAYS, f'huber_d{delta}_grad', gradient) < LIMIT


@pytest.mark.parametrize('mode', ['iou', 'giou', 'diou', 'ciou'])
def test_iou_loss__each_pair_and_gradient(mode: str) -> None:
    pred, target = (torch.from_numpy(ARRAYS[f'iou_{name}']) for name in ('pred', 'target'))
    loss = BoxIoULoss(mode, angle_gradient='reference', reduction='none')
    value, gradient = with_gradient(pred, lambda x: loss(swap(x), swap(target)))
    assert difference(ARRAYS, f'iouloss_{mode}', value) < LIMIT
    assert difference(ARRAYS, f'iouloss_{mode}_grad', gradient) < LIMIT
