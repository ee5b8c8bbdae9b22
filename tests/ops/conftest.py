"""A meter of what operators allocate."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class Allocations(TorchDispatchMode):
    """What the operators inside allocate, in units of so many bytes.

    ``peak`` is the most that is alive after any of them, ``made`` how many results were half a unit
    or more. What was there before does not count.
    """

    def __init__(self, unit: int) -> None:
        super().__init__()
        self.unit, self.made, self.peak = unit, 0, 0.0
        self._alive = WeakIdKeyDictionary(ref_type=weakref.ref)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(storage) for storage in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if id(storage) not in given and storage not in self._alive:
                self._alive[storage] = storage.nbytes()
                self.made += storage.nbytes() >= self.unit / 2
        self.peak = max(self.peak, sum(self._alive.values()) / self.unit)
        return result


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [x.untyped_storage() for x in tree_leaves(tree) if isinstance(x, Tensor)]


@pytest.fixture
def allocations() -> type[Allocations]:
    return Allocations
