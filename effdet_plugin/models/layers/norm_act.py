"""Batch norm and activation that keep one map for backward instead of three.

Of ``conv(act(norm(x)))`` autograd keeps ``x`` for the norm, ``norm(x)`` for the activation and
``act(norm(x))`` for the convolution. Here it keeps ``x`` and two numbers per channel; backward
computes the others again, by the same formula. Values are those of the plain layers to the bit,
gradients to rounding.
"""

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm

from effdet_plugin.errors import ConfigError

_aten: Any = torch.ops.aten


@dataclass(frozen=True)
class _Activation:
    """Kernels of an activation: in place, not in place, and from (gradient, input) to gradient."""

    in_place: Callable[[Tensor], Tensor]
    plain: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


KERNELS: dict[type[nn.Module], _Activation] = {
    nn.SiLU: _Activation(_aten.silu_, F.silu, _aten.silu_backward),
    nn.ReLU: _Activation(_aten.relu_, F.relu, lambda g, y: _aten.threshold_backward(g, y, 0)),
    nn.ReLU6: _Activation(
        lambda y: _aten.hardtanh_(y, 0, 6),
        F.relu6,
        lambda g, y: _aten.hardtanh_backward(g, y, 0, 6),
    ),
    nn.Hardswish: _Activation(_aten.hardswish_, F.hardswish, _aten.hardswish_backward),
    nn.Mish: _Activation(_aten.mish_, F.mish, _aten.mish_backward),
}


class RecomputingBatchNormAct2d(BatchNormAct2d):
    """timm's batch norm with activation, which recomputes inside `recomputed_norms`."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same shape."""
        if not isinstance(self.drop, nn.Identity) or not _is_active(self, self.act, x):
            return super().forward(x)
        return _apply(self, self.act, x)


def make_recomputing(network: nn.Module) -> None:
    """Let every norm with activation of a timm network recompute inside `recomputed_norms`.

    Parameters, buffers and their names stay.

    Args:
        network: Changed.

    Raises:
        ConfigError: It has none: its norms and activations are layers of their own (ResNet), or it
            has another kind of norm.
    """
    layers = [module for module in network.modules() if type(module) is BatchNormAct2d]
    if not layers:
        raise ConfigError(
            'backbone.recompute_norm_act: this network has no layer of batch norm and activation '
            'in one, and would save nothing; leave it out, or use with_cp'
        )
    for layer in layers:
        # timm's builders take no class of one's own for this layer.
        layer.__class__ = RecomputingBatchNormAct2d


def norm_act(norm: nn.Module, act: nn.Module, x: Tensor) -> Tensor:
    """``act(norm(x))``, which keeps ``x`` only inside `recomputed_norms`.

    Args:
        norm: Batch norm.
        act: Activation.
        x: ``(B, C, H, W)``.
    """
    if not _is_active(norm, act, x):
        return act(norm(x))
    return _apply(norm, act, x)


def recomputed_norms(is_on: bool) -> AbstractContextManager[None]:
    """Return a context in which norms with activations are recomputed in backward.

    Args:
        is_on: False for a context that changes nothing.
    """
    return _recomputing() if is_on else nullcontext()


def plain_norms() -> AbstractContextManager[None]:
    """Return a context inside `recomputed_norms` in which norms are as PyTorch has them."""
    return _set(None)


@contextmanager
def _recomputing() -> Iterator[None]:
    outputs = _Outputs()
    with _set(outputs), saved_tensors_hooks(outputs.pack, _unpack):
        yield


@contextmanager
def _set(outputs: '_Outputs | None') -> Iterator[None]:
    before = getattr(_state, 'outputs', None)
    _state.outputs = outputs
    try:
        yield
    finally:
        _state.outputs = before


@dataclass
class _Layer:
    """What it takes to compute the maps of a norm with activation again.

    Attributes:
        x: ``(B, C, H, W)``, input of the norm.
        scale: ``(C,)``.
        shift: ``(C,)``.
        mean: ``(C,)``, of the batch.
        invstd: ``(C,)``, reciprocal standard deviation of the batch.
        eps: Of the norm.
        activation: Its kernels.
        normalised: See `_Normalised`.
    """

    x: Tensor
    scale: Tensor | None
    shift: Tensor | None
    mean: Tensor
    invstd: Tensor
    eps: float
    activation: _Activation
    normalised: '_Normalised'

    def output(self) -> Tensor:
        """Compute ``act(norm(x))``; ``norm(x)`` is left for the activation, whose turn is next."""
        self.normalised.map = self.compute()
        return self.activation.plain(self.normalised.map)

    def compute(self) -> Tensor:
        """Compute ``norm(x)``."""
        variance = self.invstd.square().reciprocal() - self.eps
        return F.batch_norm(
            self.x, self.mean, variance, self.scale, self.shift, False, 0.0, self.eps
        )


class _Normalised:
    """The map between norm and activation, while both are in their backward pass."""

    map: Tensor | None = None

    def take(self) -> Tensor | None:
        taken, self.map = self.map, None
        return taken


class _Outputs:
    """Outputs of norms with activations, which other operators are not to keep."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[weakref.ref[Tensor], int, _Layer]] = {}

    def add(self, output: Tensor, layer: _Layer) -> None:
        """Note an output, as it is now, for as long as it lives."""
        address, layers = output.data_ptr(), self._layers

        def forget(gone: weakref.ref[Tensor]) -> None:
            if address in layers and layers[address][0] is gone:
                del layers[address]

        layers[address] = weakref.ref(output, forget), output._version, layer

    def pack(self, saved: Tensor) -> Any:
        """Return the layer if its output is to be kept, else the tensor itself."""
        reference, version, layer = self._layers.get(saved.data_ptr(), (None, 0, None))
        output = reference() if reference else None
        if output is None or saved._version != version:
            return saved
        is_whole = saved.shape == output.shape and saved.stride() == output.stride()
        return layer if is_whole else saved


def _unpack(packed: Any) -> Tensor:
    return packed.output() if isinstance(packed, _Layer) else packed


class _NormAct(torch.autograd.Function):
    """``act(norm(x))`` of a batch; keeps x, mean and reciprocal standard deviation."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        norm: _BatchNorm,
        factor: float,
        layers: list[_Layer],
        activation: _Activation,
    ) -> Tensor:
        y, mean, invstd = torch.native_batch_norm(
            x, scale, shift, norm.running_mean, norm.running_var, True, factor, norm.eps
        )
        ctx.save_for_backward(x, scale, shift, mean, invstd)
        ctx.eps, ctx.activation, ctx.normalised = norm.eps, activation, _Normalised()
        layers.append(_Layer(x, scale, shift, mean, invstd, ctx.eps, activation, ctx.normalised))
        return activation.in_place(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, mean, invstd = ctx.saved_tensors
        y = ctx.normalised.take()
        if y is None:  # nothing kept the output
            layer = _Layer(x, scale, shift, mean, invstd, ctx.eps, ctx.activation, ctx.normalised)
            y = layer.compute()
        grad = ctx.activation.backward(grad, y)
        del y
        needed = ctx.needs_input_grad[:3]
        found = _aten.native_batch_norm_backward(
            grad, x, scale, None, None, mean, invstd, True, ctx.eps, needed
        )
        return (*found, None, None, None, None)


_state = threading.local()


def _is_active(norm: nn.Module, act: nn.Module, x: Tensor) -> bool:
    """Whether a norm with activation is to recompute: in training, of an activation known here.

    Not a norm that is synchronised over GPUs, whose statistics are not computed here.
    """
    return (
        not torch.compiler.is_compiling()
        and getattr(_state, 'outputs', None) is not None
        and torch.is_grad_enabled()
        and norm.training
        and isinstance(norm, nn.BatchNorm2d)
        and norm.running_mean is not None
        and type(act) in KERNELS
        and x.numel() > x.shape[1]  # of a single value a norm of ours has its own rule
    )


def _apply(norm: Any, act: nn.Module, x: Tensor) -> Tensor:
    factor = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        factor = 1.0 / float(norm.num_batches_tracked) if factor is None else factor
    layers: list[_Layer] = []
    activation = KERNELS[type(act)]
    output: Tensor = _NormAct.apply(x, norm.weight, norm.bias, norm, factor, layers, activation)
    _state.outputs.add(output, layers[0])
    return output
