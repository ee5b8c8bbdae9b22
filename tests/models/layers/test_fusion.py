from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from effdet_plugin.errors import ConfigError
from effdet_plugin.models.layers.fusion import METHODS, Fusion, build_fusion, fusion_scales


@pytest.mark.parametrize('method', METHODS)
def test_fusion__starts_as_a_mean_or_a_sum(method: str) -> None:
    fusion = Fusion(3, method, channels=4)
    maps = [torch.randn(2, 4, 3, 3) for _ in range(3)]
    total = maps[0] + maps[1] + maps[2]
    expected = total if method == 'sum' else total / 3
    torch.testing.assert_close(fusion(maps), expected, rtol=1e-3, atol=1e-3)
    assert (fusion.weights is None) == (method == 'sum')


def test_fast_attn__by_hand() -> None:
    fusion = Fusion(2)
    fusion.load_state_dict({'weights': torch.tensor([3.0, -1.0])})
    found = fusion([torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 9.0)])
    assert found.item() == pytest.approx(3 / 3.0001)


@pytest.mark.parametrize('method', ['fast_attn', 'attn'])
def test_weights__are_normalised_in_float32_for_any_maps(method: str) -> None:
    fusion = Fusion(2, method).to(torch.bfloat16)
    weights = fusion.normalized_weights()
    assert weights is not None
    assert weights.dtype == torch.float32
    maps = [torch.ones(1, 1, 2, 2, dtype=torch.bfloat16)] * 2
    assert fusion(maps).dtype == torch.bfloat16


class Operators(TorchDispatchMode):
    """Names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('method', METHODS)
def test_fusion__never_stacks(method: str) -> None:
    with Operators() as operators:
        Fusion(3, method, channels=2)([torch.randn(1, 2, 3, 3) for _ in range(3)])
    assert operators.names.count('aten.add.Tensor') >= 2
    assert not any('stack' in name or 'cat' in name for name in operators.names)


def test_fusion__unknown_method() -> None:
    with pytest.raises(ConfigError, match=r"fusion='mean'.*fast_attn, attn, sum"):
        Fusion(2, 'mean')


def test_fusion__a_bare_class_name_is_told_the_config_form() -> None:
    with pytest.raises(ConfigError, match=r"'MaxFusion'.*dict\(type='YourClass'\)$"):
        build_fusion('MaxFusion', 2, 4)


def test_scales__of_many_fusions_at_once_are_those_of_each() -> None:
    numbers = [2, 3, 2] * len(METHODS)
    fusions = [Fusion(n, METHODS[k // 3], channels=4) for k, n in enumerate(numbers)]
    for fusion in fusions:
        if fusion.weights is not None:
            nn.init.normal_(fusion.weights)
    maps = [torch.randn(2, 4, 3, 3) for _ in range(3)]
    together = fusion_scales([*fusions, nn.Identity()], torch.float32)
    assert together[-1] == ()
    for fusion, scales, n in zip(fusions, together, numbers, strict=False):
        assert torch.equal(fusion(maps[:n], scales), fusion(maps[:n]))


class Halves(Fusion):
    """Weights of its own."""

    def normalized_weights(self) -> Tensor:
        return torch.tensor([0.5, 0.25])


def test_fusion__a_subclass_weights_in_its_own_way() -> None:
    fusion = Halves(2)
    assert fusion_scales([fusion], torch.float32) == [()]
    ones = torch.ones(1, 2, 3, 3)
    assert torch.equal(fusion([ones, 4 * ones]), 1.5 * ones)


def test_scales__do_not_raise_the_dtype_of_a_map() -> None:
    fusion = Fusion(2, 'channel_attn', channels=2)
    (scales,) = fusion_scales([fusion], torch.float32)
    maps = [torch.ones(1, 2, 3, 3, dtype=torch.bfloat16)] * 2
    assert fusion(maps, scales).dtype == torch.bfloat16
