import torch
from torch import Tensor, nn

from effdet_plugin.models.layers.activation_checkpoint import checkpoint_activations


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout2d(0.5), nn.Conv2d(4, 2, 1)
    ).train()


def test_checkpoint__same_gradients_statistics_and_draws() -> None:
    plain, saving = network(), network()
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(3, 2, 8, 8)
    outputs: list[Tensor] = []
    for forward in (plain, lambda x: checkpoint_activations(saving, x)):
        torch.manual_seed(1)
        outputs.append(forward(x))
        outputs[-1].square().sum().backward()
    assert torch.equal(*outputs)
    for own, expected in zip(saving.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, expected.grad)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(saving.state_dict()[name], value, msg=name)
    assert saving[1].num_batches_tracked == 1
    assert saving[1].momentum == 0.1


def test_checkpoint__keeps_no_activations() -> None:
    model, sizes = network(), []

    def count(x: Tensor) -> Tensor:
        sizes.append(x.numel())
        return x

    x = torch.randn(3, 2, 8, 8)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        checkpoint_activations(model, x)
    assert sum(sizes) <= x.numel() + sum(p.numel() for p in model.parameters())
