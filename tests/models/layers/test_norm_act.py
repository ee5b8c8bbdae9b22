"""Norms with activations that are recomputed: values, gradients, statistics and what is kept."""

import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from effdet_plugin.errors import ConfigError
from effdet_plugin.models.backbones import TimmBackbone
from effdet_plugin.models.layers import norm_act
from effdet_plugin.models.layers.conv import BatchNorm2d
from effdet_plugin.models.layers.norm_act import KERNELS, recomputed_norms

LITE0, B0 = 'tf_efficientnet_lite0', 'tf_efficientnet_b0'
LAST, FIRST = torch.channels_last, torch.contiguous_format


class Block(nn.Module):
    """Convolution, norm, activation; convolution, which keeps its input; norm alone."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.act = nn.Conv2d(3, 16, 3), BatchNorm2d(16, 0.1), act
        self.second = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(norm_act.norm_act(self.norm, self.act, self.first(x)))


def one_step(network: nn.Module, images: Tensor, is_on: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and gradients."""
    torch.manual_seed(3)  # of drop path
    with recomputed_norms(is_on):
        found = network(images)
    outputs = [found] if isinstance(found, Tensor) else [*found]
    torch.stack([x.float().square().mean() for x in outputs]).sum().backward()
    return outputs, [p.grad for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize('order', [FIRST, LAST])
@pytest.mark.parametrize('kind', KERNELS)
def test_norm_act__is_the_plain_layers(kind: Callable[[], nn.Module], order: Any) -> None:
    plain = Block(kind()).double().train()
    plain.to(memory_format=order)  # type: ignore[call-overload]
    saving = copy.deepcopy(plain)
    images = (3 * torch.randn(2, 3, 9, 7, dtype=torch.float64)).contiguous(memory_format=order)
    expected, gradients = one_step(plain, images, False)
    outputs, own = one_step(saving, images, True)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=0)
    torch.testing.assert_close(own, gradients, rtol=1e-9, atol=1e-12)
    for buffer, other in zip(saving.buffers(), plain.buffers(), strict=True):
        assert torch.equal(buffer, other)


def test_norm_act__bf16_within_its_rounding() -> None:
    plain = Block(nn.SiLU()).train()
    saving = copy.deepcopy(plain)
    images = torch.randn(2, 3, 32, 32)
    with torch.autocast('cpu', torch.bfloat16):
        expected, gradients = one_step(plain, images, False)
        outputs, own = one_step(saving, images, True)
    assert outputs[0].dtype == torch.bfloat16
    torch.testing.assert_close(outputs, expected, rtol=0, atol=0)
    torch.testing.assert_close(own, gradients, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize(
    ('model_name', 'momentum', 'with_cp'),
    [
        (LITE0, 0.1, False),
        (B0, None, False),
        (B0, 0.1, True),
        ('mobilenetv3_small_050', 0.1, False),
    ],
)
def test_backbone__same_gradients_and_statistics(
    model_name: str, momentum: float | None, with_cp: bool
) -> None:
    settings: dict[str, Any] = {'out_indices': (0, 2), 'drop_path_rate': 0.2}
    plain = TimmBackbone(model_name, **settings).train()
    saving = TimmBackbone(model_name, **settings, with_cp=with_cp, recompute_norm_act=True).train()
    saving.load_state_dict(plain.state_dict())
    for module in [*plain.modules(), *saving.modules()]:
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum
    images = torch.randn(2, 3, 64, 64)
    expected, gradients = one_step(plain, images, False)
    outputs, own = one_step(saving, images, False)  # the backbone opens the context itself
    torch.testing.assert_close(outputs, expected, rtol=0, atol=0)
    torch.testing.assert_close(own, gradients, rtol=1e-4, atol=1e-6)
    for (name, value), other in zip(
        saving.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name


def test_backbone__where_nothing_is_saved() -> None:
    with pytest.raises(ConfigError, match='recompute_norm_act: this network has no layer'):
        TimmBackbone('resnet18', recompute_norm_act=True)


def kept_bytes(network: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> int:
    """Memory that the graph of a forward pass holds, without parameters and buffers."""
    known = {x.untyped_storage().data_ptr() for x in [*network.state_dict().values(), images]}
    kept: dict[int, int] = {}

    def note(saved: Tensor) -> Tensor:
        storage = saved.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return saved

    pack = norm_act._Outputs.pack

    def noting(self: norm_act._Outputs, saved: Tensor) -> Any:
        packed = pack(self, saved)
        return note(packed) if packed is saved else packed

    monkeypatch.setattr(norm_act._Outputs, 'pack', noting)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        outputs = network(images)
    del outputs
    return sum(size for address, size in kept.items() if address not in known)


@pytest.mark.parametrize(('model_name', 'share'), [(B0, 0.55), (LITE0, 0.5)])
def test_backbone__keeps_half(
    model_name: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.randn(1, 3, 256, 256)
    plain = kept_bytes(TimmBackbone(model_name).train(), images, monkeypatch)
    saving = TimmBackbone(model_name, recompute_norm_act=True).train()
    assert kept_bytes(saving, images, monkeypatch) < share * plain


def test_backbone__nothing_outlives_the_step() -> None:
    network = TimmBackbone(LITE0, recompute_norm_act=True).train()
    images = torch.randn(1, 3, 64, 64)
    one_step(network, images, False)
    gc.collect()
    gc.disable()  # what only the collector frees would grow from step to step
    try:
        before = sum(isinstance(x, Tensor) for x in gc.get_objects())
        for _ in range(2):
            one_step(network, images, False)
        assert sum(isinstance(x, Tensor) for x in gc.get_objects()) == before
    finally:
        gc.enable()


def test_outputs__are_forgotten_with_their_map(monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[int] = []
    add = norm_act._Outputs.add

    def counting(self: norm_act._Outputs, output: Tensor, layer: Any) -> None:
        add(self, output, layer)
        noted.append(len(self._layers))

    monkeypatch.setattr(norm_act._Outputs, 'add', counting)
    TimmBackbone(B0, recompute_norm_act=True).train()(torch.randn(1, 3, 64, 64))
    assert len(noted) > 30
    assert max(noted) <= 3  # else a layer's input would live as long as the forward pass


def test_backbone__in_evaluation_mode_nothing_changes() -> None:
    network = TimmBackbone(LITE0, recompute_norm_act=True).eval()
    assert any(isinstance(m, BatchNormAct2d) for m in network.modules())
    counts = [m.num_batches_tracked.clone() for m in network.modules() if hasattr(m, 'act')]
    network(torch.randn(1, 3, 64, 64))
    assert counts == [m.num_batches_tracked for m in network.modules() if hasattr(m, 'act')]


def test_an_output_that_was_changed_is_kept() -> None:
    block = Block(nn.SiLU()).train()
    images = torch.randn(2, 3, 9, 9)

    def forward(is_on: bool) -> Tensor:
        with recomputed_norms(is_on):
            x = norm_act.norm_act(block.norm, block.act, block.first(images))
            return block.second(x.mul_(2))

    gradients = []
    for is_on in (False, True):
        block.zero_grad()
        forward(is_on).square().mean().backward()
        gradients.append([p.grad.clone() for p in block.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
