"""Stand-ins for what checkpoints hold beside tensors and plain types, so that nothing is run.

These are what mmengine's own ``CheckpointHook`` writes: ``HistoryBuffer`` (its record of a logged
number), arrays and scalars of numpy. numpy's functions are replaced, since ``dtype.__setstate__``
believes every flag that a file gives it.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from effdet_plugin.errors import CheckpointError

_PLAIN_DTYPE = re.compile(r'[?biufcSU]\d*')


class DType:
    """A stand-in for ``numpy.dtype``: of numbers and strings only."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not _PLAIN_DTYPE.fullmatch(code):
            raise ValueError(f'an array of {code[:20]!r}')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take the byte order, the only one of the fields that plain types differ in."""
        self.dtype = np.dtype(self.dtype.newbyteorder(state[1]).str)


class Array:
    """A stand-in for ``numpy.ndarray``."""

    state: tuple[Any, ...] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Keep what numpy writes: version, shape, type, whether in Fortran order, and bytes."""
        self.state = state

    def real(self) -> np.ndarray[Any, Any]:
        """Return the array; numpy checks that shape and bytes fit."""
        if self.state is None:
            raise CheckpointError('an array without a content')
        _, shape, stand_in, is_fortran, content = self.state
        flat = np.frombuffer(content, stand_in.dtype) if content else np.empty(0, stand_in.dtype)
        return flat.reshape(shape, order='F' if is_fortran else 'C').copy(order='K')


class History:
    """A stand-in for mmengine's ``HistoryBuffer``, whose own state holds functions, too."""

    state: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Keep the fields."""
        self.state = state

    def real(self) -> Any:
        """Return the buffer."""
        # Late: mmengine writes it, but readers of tensors do without mmengine.
        from mmengine.logging import HistoryBuffer

        values, counts = (self.state[f'_{name}_history'].real() for name in ('log', 'count'))
        return HistoryBuffer(values, counts, self.state['max_length'])


def _scalar(stand_in: DType, content: bytes) -> Any:
    return np.frombuffer(content, stand_in.dtype)[0]


def _named(target: Callable[..., Any], path: str) -> Callable[..., Any]:
    """Name a function or class as in pickles: torch finds what is allowed by these names."""
    target.__module__, _, target.__name__ = path.rpartition('.')
    target.__qualname__ = target.__name__
    return target


ALLOWED: list[Any] = [
    _named(DType, 'numpy.dtype'),
    _named(Array, 'numpy.ndarray'),
    _named(History, 'mmengine.logging.history_buffer.HistoryBuffer'),
    # Names a method of HistoryBuffer in its state, and nothing is got.
    _named(lambda *_: None, 'builtins.getattr'),
    _named(lambda: b'', 'builtins.bytes'),  # those of an empty array
]
for _package in ('numpy.core', 'numpy._core'):  # of numpy 1 and 2
    ALLOWED += [
        _named(lambda *_: Array(), f'{_package}.multiarray._reconstruct'),
        _named(lambda *arguments: _scalar(*arguments), f'{_package}.multiarray.scalar'),
    ]
