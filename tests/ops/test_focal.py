import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from effdet_plugin.ops.focal import sigmoid_focal_loss


def one_hot_focal(
    logits: Tensor, labels: Tensor, alpha: float, gamma: float, smoothing: float
) -> Tensor:
    """The formula as it is written, over a one-hot target: ``(N, C)``."""
    num_classes = logits.shape[1]
    inside = (labels >= 0) & (labels < num_classes)
    target = F.one_hot(torch.where(inside, labels, num_classes), num_classes + 1)[:, :-1]
    target = target.to(logits.dtype)
    p = logits.sigmoid()
    p_t = target * p + (1 - target) * (1 - p)
    alpha_t = target * alpha + (1 - target) * (1 - alpha)
    smoothed = target * (1 - smoothing) + 0.5 * smoothing
    entropy = F.binary_cross_entropy_with_logits(logits, smoothed, reduction='none')
    return alpha_t * (1 - p_t) ** gamma * entropy


def batch(seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Logits of 12 rows and 5 classes; some rows are background by 5 or -1."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(12, 5, generator=generator, dtype=dtype)
    return logits, torch.randint(-1, 6, (12,), generator=generator)


@given(
    seed=st.integers(0, 2**31),
    alpha=st.floats(0.05, 0.95),
    gamma=st.sampled_from([0.0, 1.0, 1.5, 2.0]),
    smoothing=st.sampled_from([0.0, 0.1]),
)
def test_focal__equals_the_one_hot_formula(
    seed: int, alpha: float, gamma: float, smoothing: float
) -> None:
    logits, labels = batch(seed)
    logits.requires_grad_()
    rows = sigmoid_focal_loss(logits, labels, alpha, gamma, smoothing)
    expected = one_hot_focal(logits, labels, alpha, gamma, smoothing).sum(1)
    torch.testing.assert_close(rows, expected)
    weights = torch.linspace(0, 2, len(rows), dtype=torch.float64)
    gradients = [torch.autograd.grad((x * weights).sum(), logits)[0] for x in (rows, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('gamma', [0.0, 1.0, 1.5, 2.0])
def test_focal__gradient_is_that_of_the_loss(gamma: float) -> None:
    logits, labels = batch(0)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: sigmoid_focal_loss(x, labels, gamma=gamma, label_smoothing=0.05), logits
    )


def test_focal__without_focus_is_half_the_cross_entropy() -> None:
    logits, labels = batch(1)
    rows = sigmoid_focal_loss(logits, labels, alpha=0.5, gamma=0.0)
    torch.testing.assert_close(rows, one_hot_focal(logits, labels, 0.5, 0.0, 0.0).sum(1))
    target = F.one_hot(labels.clamp(0), 6)[:, :5].double() * (labels >= 0)[:, None]
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction='none').sum(1)
    torch.testing.assert_close(rows, entropy / 2)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_focal__low_precision_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    logits, labels = batch(2, torch.float32)
    short = logits.to(dtype).requires_grad_()
    wide = short.detach().float().requires_grad_()
    rows, expected = (sigmoid_focal_loss(x, labels) for x in (short, wide))
    assert rows.dtype == torch.float32
    assert torch.equal(rows, expected)
    (gradient,) = torch.autograd.grad(rows.sum(), short)
    (exact,) = torch.autograd.grad(expected.sum(), wide)
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient.float(), exact, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize('logit', [-200.0, -100.0, 100.0, 200.0])
@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('label', [0, 1])
def test_focal__extreme_logits_stay_finite(logit: float, label: int, smoothing: float) -> None:
    logits = torch.full((1, 1), logit, requires_grad=True)
    rows = sigmoid_focal_loss(logits, torch.tensor([label]), label_smoothing=smoothing)
    (gradient,) = torch.autograd.grad(rows.sum(), logits)
    assert torch.isfinite(rows).all()
    assert torch.isfinite(gradient).all()
    is_right = (logit > 0) == (label == 0)
    assert (rows.item() < 1e-30) == is_right
    assert (gradient.abs().item() < 1e-30) == is_right


def test_focal__a_sure_positive_keeps_its_digits() -> None:
    # As background term plus a correction it was exactly 0.
    logits = torch.tensor([[10.0, -30.0]], requires_grad=True)
    rows = sigmoid_focal_loss(logits, torch.tensor([0]))
    assert rows.item() == pytest.approx(3.4718e-12, rel=1e-3)
    # With sigmoid(x) - 1 in it the gradient was off by 2e-4, at a logit of 15 by 7 %.
    miss = 1 / (1 + math.exp(10))
    expected = -0.25 * miss**1.5 * (1.5 * (1 - miss) * math.log1p(math.exp(-10)) + miss)
    (gradient,) = torch.autograd.grad(rows, logits)
    assert gradient[0, 0].item() == pytest.approx(expected, rel=1e-6)


def test_focal__no_rows() -> None:
    logits = torch.zeros(0, 4, requires_grad=True)
    rows = sigmoid_focal_loss(logits, torch.zeros(0, dtype=torch.long))
    assert rows.shape == (0,)
    assert torch.autograd.grad(rows.sum(), logits)[0].shape == (0, 4)


def test_focal__backward_needs_the_logits_and_labels_alone() -> None:
    logits, labels = torch.randn(1000, 30, requires_grad=True), torch.zeros(1000, dtype=torch.long)
    saved: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        saved.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, keep):
        sigmoid_focal_loss(logits, labels)
    # The logits are not a copy: they are there anyway.
    own = [x for x in saved if x.untyped_storage().data_ptr() != logits.data_ptr()]
    assert sum(x.numel() * x.element_size() for x in own) <= labels.numel() * 8


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_focal__two_buffers_forward_and_two_backward(
    dtype: torch.dtype, smoothing: float, allocations: Any
) -> None:
    logits, labels = torch.randn(500, 90).to(dtype).requires_grad_(), torch.arange(500) % 91
    unit = logits.numel() * 4
    with allocations(unit) as forward:
        total = sigmoid_focal_loss(logits, labels, label_smoothing=smoothing).sum()
    with allocations(unit) as backward:
        total.backward()
    assert forward.made == 2
    assert backward.made == 2 + (dtype != torch.float32)  # the gradient, in the logits' type
    assert 2 <= forward.peak < 2.2  # what has a value per row is the rest
    assert 2 <= backward.peak < 2.2


def test_focal__neither_logits_nor_graph_are_written_on() -> None:
    logits, labels = batch(3)
    before = logits.clone()
    total = sigmoid_focal_loss(logits.requires_grad_(), labels, label_smoothing=0.1).sum()
    first, second = (torch.autograd.grad(total, logits, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(logits, before)


def test_focal__a_second_derivative_is_refused_not_wrong() -> None:
    logits, labels = batch(4)
    total = sigmoid_focal_loss(logits.requires_grad_(), labels).sum()
    (gradient,) = torch.autograd.grad(total, logits, create_graph=True)
    with pytest.raises(RuntimeError, match='inplace operation'):
        torch.autograd.grad(gradient.square().sum(), logits)
