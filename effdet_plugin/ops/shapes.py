"""Networks for the names and shapes of their tensors alone, without the slowest parts of that."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# What torch.nn.init and the layers of timm and mmcv call; its other functions end here.
_RANDOM = (
    *(Tensor.normal_, Tensor.uniform_),
    *(nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_),
)


class NoRandomValues(TorchFunctionMode):
    """Within it, no random values are drawn: the weights of a network that is built are zeros.

    For weights that are all overwritten, or that have no values (meta device). Not what the memory
    holds: ``trunc_normal_`` of newer versions of torch draws again what is outside its bounds.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, unless it draws random values in place."""
        if func in _RANDOM:
            tensor = args[0] if args else (kwargs or {})['tensor']
            with torch.no_grad():
                return tensor.zero_()
        return func(*args, **(kwargs or {}))


class ShapesOnly(NoRandomValues):
    """For the meta device: also, batch norm without data is a new map of its input's shape.

    torch computes that shape by the formula of the norm in Python, one meta tensor after the other:
    half the time of a pass of EfficientDet.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, unless it draws random values or is a batch norm without data."""
        if func is F.batch_norm and isinstance(args[0], Tensor) and args[0].is_meta:
            return torch.empty_like(args[0])
        return super().__torch_function__(func, types, args, kwargs)
