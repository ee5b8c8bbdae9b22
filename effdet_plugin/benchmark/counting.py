"""Count the operators of a call, which do not depend on the machine."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

# These show the same memory in another shape or do nothing: no kernel runs.
VIEWS = (
    *('alias', 'detach', 'expand', 'permute', 'promote_types', 'select', 'slice', 'split', 't'),
    *('transpose', 'unbind', 'unsqueeze', 'view'),
    *('_record_function_enter_new', '_record_function_exit'),
)


class _Kernels(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name.split('::')[-1]
        if name not in VIEWS:
            self.names[name] += 1
        return func(*args, **(kwargs or {}))


def operators(call: Callable[[], Any]) -> Counter[str]:
    """Return how often ``call()`` uses each operator that computes or copies.

    Those of the backward pass and of custom autograd functions count, views do not. An operator on
    a list of tensors counts once.
    """
    with _Kernels() as found:
        call()
    return found.names
