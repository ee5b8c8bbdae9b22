"""Fold a trained detector for inference: no batch norm, static padding, constant fusion weights.

In evaluation mode a BN is a scale and a shift of each channel, which the convolution before it can
do by itself. Exports and the fast form of inference use the same folded network; its results differ
from the original's by rounding only.

Which convolution belongs to which BN is read from a forward pass on the meta device (shapes without
data), not from names, so that any backbone folds whose BN directly follow a convolution. The head's
convolutions are shared by all levels while their BN are not: each level gets a copy of the
pointwise convolution, the larger depthwise maps stay shared.
"""

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from effdet_plugin.errors import ConfigError
from effdet_plugin.models.dense_heads.tower import Tower
from effdet_plugin.models.detectors.efficientdet import EfficientDet
from effdet_plugin.models.layers.conv import SeparableConv2d
from effdet_plugin.models.layers.fusion import Fusion
from effdet_plugin.models.necks.bifpn import FusionNode
from effdet_plugin.ops.resample import same_padding
from effdet_plugin.ops.shapes import ShapesOnly

# Others transform their weights (weight standardisation), so these cannot be scaled beforehand.
FOLDABLE = (nn.Conv2d, Conv2dSame)
# Any size at which every network has all of its maps; without a size only the order of the modules
# is read from the pass.
ANY_SIZE = (512, 512)


class StaticSameConv2d(nn.Conv2d):
    """Convolution whose SAME padding is fixed, for the sizes it was folded for.

    Args:
        conv: timm's convolution that computes its padding from every input.
        size: (height, width) of its input.
    """

    def __init__(self, conv: nn.Conv2d, size: tuple[int, int]) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(copy.copy(conv).__dict__)
        (top, bottom), (left, right) = self._same(size)
        self.pads = (left, right, top, bottom)
        # An even padding is an argument of the convolution; an uneven one needs a padded copy.
        self.is_even = top == bottom and left == right
        if self.is_even:
            self.padding = (top, left)

    def _same(self, size: Sequence[int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Padding of both axes for an input of ``size``."""
        kernels = [(k - 1) * d + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True)]
        vertical, horizontal = map(same_padding, size, kernels, self.stride)
        return vertical, horizontal

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, C', ceil(H / stride), ceil(W / stride))``.

        Raises:
            ConfigError: the padding is another one for this size.
        """
        # A graph of dynamic size only takes sizes of one padding: nothing to check there.
        if not torch.compiler.is_compiling():
            (top, bottom), (left, right) = self._same(x.shape[-2:])
            if (left, right, top, bottom) != self.pads:
                raise ConfigError(
                    f'the network is folded for images of another size: a map of {x.shape[-2]}x'
                    f'{x.shape[-1]} has another padding; fold it with image_size=None'
                )
        if not self.is_even:
            x = F.pad(x, self.pads)
        return self._conv_forward(x, self.weight, self.bias)


class ConstantFusion(nn.Module):
    """A fusion whose normalised weights are constants.

    Args:
        fusion: a trained fusion that has weights.
    """

    def __init__(self, fusion: Fusion) -> None:
        super().__init__()
        weights = fusion.normalized_weights()
        assert weights is not None
        for number, weight in enumerate(weights.detach()):
            # One buffer each: indexing a common one would be an operator of the graph.
            self.register_buffer(f'scale{number}', weight.reshape(-1, 1, 1).clone())

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """n maps ``(B, C, H, W)`` -> one of the same shape."""
        scales = self.buffers()
        total = inputs[0] * next(scales)
        for x, scale in zip(inputs[1:], scales, strict=True):
            total = total + x * scale
        return total


class FoldedTower(nn.Module):
    """A tower without BN: depthwise convolutions shared, a pointwise one for each level.

    Args:
        tower: a trained tower.
    """

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.separable = isinstance(tower.predict, SeparableConv2d)
        self.depthwise = nn.ModuleList()
        self.convs = nn.ModuleList()
        pairs: Any = zip(tower.convs, tower.norms, strict=True)
        for conv, norms in pairs:
            self.depthwise.append(conv.depthwise if self.separable else nn.Identity())
            last = conv.pointwise if self.separable else conv
            self.convs.append(nn.ModuleList(_folded(last, norm) for norm in norms))
        self.act = _in_place(tower.act)
        self.predict = tower.predict
        self.has_skip = tower.survival_prob is not None

    def forward(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """Level maps ``(B, in_channels, h, w)`` -> predictions ``(B, out_channels, h, w)``."""
        return [self.predict(self.features(x, level)) for level, x in enumerate(feats)]

    def features(self, x: Tensor, level: int) -> Tensor:
        """Map ``(B, feat_channels, h, w)`` of one level after all repeats, without prediction."""
        for repeat, (depthwise, convs) in enumerate(zip(self.depthwise, self.convs, strict=True)):
            y = self.act(convs[level](depthwise(x)))  # type: ignore[index]
            x = y + x if self.has_skip and repeat > 0 else y
        return x


def fold(model: EfficientDet, image_size: tuple[int, int] | None = None) -> EfficientDet:
    """A copy of a detector for inference: BN folded into convolutions, constants computed.

    The copy is in evaluation mode, has no gradients, and is called like the original. Options of
    training (recomputation, ``torch.compile``) are off.

    Args:
        model: a detector; it is not changed.
        image_size: (height, width) of the network input in pixels: SAME padding is fixed for it
            (and for other sizes of the same padding: with multiples of 128, all multiples of 128).
            None: padding is computed from each input.

    Raises:
        ConfigError: a BN that does not directly follow a convolution, or shares one.
    """
    folded = copy.deepcopy(model).eval()
    _switch_off_recomputation(folded)
    for name, tower in _of_type(folded, Tower):
        _replace(folded, name, FoldedTower(tower))
    pairs, sizes = _trace(folded, image_size or ANY_SIZE)
    modules: dict[str, Any] = dict(folded.named_modules())
    for norm, conv in pairs.items():
        _replace(folded, conv, _folded(modules[conv], modules[norm]))
        # timm's BN also holds the activation.
        _replace(folded, norm, _in_place(getattr(modules[norm], 'act', nn.Identity())))
    for name, norm in _of_type(folded, _BatchNorm):
        raise ConfigError(
            f'{name} ({type(norm).__name__}) cannot be folded: it does not directly follow a '
            'convolution of its own; export or run the network as it is, or choose another one'
        )
    if image_size is not None:
        for name, conv in _of_type(folded, Conv2dSame):
            _replace(folded, name, StaticSameConv2d(conv, sizes[name]))
    for _, node in _of_type(folded, FusionNode):
        _fix_fusion(node)
    return folded.eval().requires_grad_(False)


def _fix_fusion(node: FusionNode) -> None:
    if not isinstance(node.fusion, Fusion):
        return  # one of the user's own stays as it is
    # Its result is a new map, except a single one without weight, which others may use.
    if node.act_last or node.fusion.weights is not None or len(node.resamples) > 1:
        node.act = _in_place(node.act)
    if node.fusion.weights is not None:
        node.fusion = ConstantFusion(node.fusion)


def _folded(conv: nn.Conv2d, norm: Any) -> nn.Conv2d:
    """A copy of a convolution that includes the BN after it."""
    new = copy.copy(conv)
    new._parameters = dict(conv._parameters)  # copy.copy shares the dict
    weight, bias = conv.weight, conv.bias
    # In float64, rounded once; on the CPU, since not every device has float64.
    w, b, mean, var, scale, shift = (
        None if x is None else x.detach().cpu().double()
        for x in (weight, bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    fused = fuse_conv_bn_weights(w, b, mean, var, norm.eps, scale, shift)  # type: ignore[arg-type]
    new.weight, new.bias = (
        nn.Parameter(x.detach().to(weight.device, weight.dtype), requires_grad=False) for x in fused
    )
    if weight.is_contiguous(memory_format=torch.channels_last):
        new.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return new


def _in_place(act: nn.Module) -> nn.Module:
    """A copy of an activation that writes over its input, which nobody else uses."""
    if not hasattr(act, 'inplace'):
        return act
    act = copy.copy(act)
    act.inplace = True  # type: ignore[assignment]
    return act


class _Uses(TorchDispatchMode):
    """Counts how many operators take each tensor, by its id."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()
        self._alive: list[Any] = []  # an id is unique only as long as its tensor lives

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        self.counts.update(map(id, given))
        self._alive += given
        return func(*args, **(kwargs or {}))


def _trace(
    model: EfficientDet, image_size: tuple[int, int]
) -> tuple[dict[str, str], dict[str, tuple[int, int]]]:
    """Run the network without data.

    Returns:
        The name of each BN that can be folded -> the name of its convolution; and the input size
        (height, width) of each convolution.
    """
    shape_only = copy.deepcopy(model, _on_meta(model))
    made: dict[int, str] = {}  # id of a map -> convolution
    taken: dict[str, int] = {}  # BN -> id of its input
    sizes: dict[str, tuple[int, int]] = {}
    calls: Counter[str] = Counter()

    def hook(name: str, module: nn.Module) -> Any:
        def after(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name] += 1
            if isinstance(module, _BatchNorm):
                taken[name] = id(args[0])
            else:
                made[id(output)] = name
                sizes[name] = (args[0].shape[-2], args[0].shape[-1])

        return module.register_forward_hook(after)

    with ExitStack() as stack:
        for name, module in shape_only.named_modules():
            if type(module) in FOLDABLE or isinstance(module, _BatchNorm):
                stack.callback(hook(name, module).remove)
        uses = stack.enter_context(_Uses())
        stack.enter_context(ShapesOnly())
        stack.enter_context(torch.no_grad())
        shape_only(torch.empty(1, 3, *image_size, device='meta'), mode='tensor')
    norms = dict(shape_only.named_modules())
    pairs = {
        norm: made[x]
        for norm, x in taken.items()
        if x in made and calls[norm] == calls[made[x]] == uses.counts[x] == 1
        and norms[norm].running_mean is not None
    }  # fmt: skip
    return pairs, sizes


def _on_meta(model: nn.Module) -> dict[int, Any]:
    """A memo for ``copy.deepcopy`` that gives the copy weights without data."""
    memo: dict[int, Any] = {}
    for x in chain(model.parameters(), model.buffers()):
        empty = x.detach().to('meta')
        memo[id(x)] = nn.Parameter(empty, False) if isinstance(x, nn.Parameter) else empty
    return memo


def _switch_off_recomputation(model: nn.Module) -> None:
    """timm's networks recompute in evaluation mode, too."""
    for module in model.modules():
        if getattr(module, 'with_cp', False):
            module.with_cp = False  # type: ignore[assignment]
        if getattr(module, 'grad_checkpointing', False):
            module.grad_checkpointing = False  # type: ignore[assignment]


def _of_type(model: nn.Module, kind: type) -> Iterator[tuple[str, Any]]:
    """Modules of a class, in a list: they may be replaced meanwhile."""
    return iter([(name, m) for name, m in model.named_modules() if isinstance(m, kind)])


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, last = name.rpartition('.')
    setattr(model.get_submodule(parent), last, new)
