import pytest
import torch
from torch import nn

from effdet_plugin.models.layers import BatchNorm2d


def test_constants__the_references() -> None:
    norm = BatchNorm2d(3)
    assert (norm.eps, norm.momentum) == (1e-3, 0.01)


def test_single_value__gives_the_shift_and_shrinks_the_variance() -> None:
    norm = BatchNorm2d(2).train()
    norm.load_state_dict({**norm.state_dict(), 'bias': torch.tensor([0.5, -1.0])})
    found = norm(torch.tensor([3.0, -7.0]).reshape(1, 2, 1, 1))
    assert found.flatten().tolist() == pytest.approx([0.5, -1.0], abs=1e-5)
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.03, -0.07]))
    torch.testing.assert_close(norm.running_var, torch.full((2,), 0.99))
    assert norm.num_batches_tracked == 1


def test_single_value__has_gradients() -> None:
    norm = BatchNorm2d(2).train()
    x = torch.randn(1, 2, 1, 1, requires_grad=True)
    norm(x).sum().backward()
    assert x.grad is not None
    assert not x.grad.any()  # the value itself does not matter
    assert norm.bias.grad is not None
    assert norm.bias.grad.tolist() == [1, 1]


def test_more_values__as_pytorch_has_it() -> None:
    own, theirs = BatchNorm2d(3), nn.BatchNorm2d(3, eps=1e-3, momentum=0.01)
    for mode in (True, False):
        x = torch.randn(2, 3, 1, 1)
        assert torch.equal(own.train(mode)(x), theirs.train(mode)(x))
    for name, value in theirs.state_dict().items():
        assert torch.equal(own.state_dict()[name], value), name
