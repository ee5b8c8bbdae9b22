"""Training state as tensors and plain types, which ``torch.load(weights_only=True)`` takes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_HISTORY = 'history_buffer'  # marks a dict that was a HistoryBuffer


def to_plain(value: Any) -> Any:
    """Return ``value`` without classes that need unpickling.

    Arrays become tensors, numpy's scalars Python's, ``HistoryBuffer`` (mmengine's record of a
    logged number) a dict of two tensors that `from_plain` turns back. What else there may be
    (paths, config objects) becomes its text.
    """
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return _plain_scalar(value)
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, HistoryBuffer):
        history, counts = (torch.as_tensor(np.asarray(data)) for data in value.data)
        return {_HISTORY: value.max_length, 'values': history, 'counts': counts}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return _plain_array(value)
    if isinstance(value, Mapping):
        return {to_plain(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return (list if isinstance(value, list) else tuple)(to_plain(item) for item in value)
    return str(value)


def _plain_array(array: np.ndarray) -> Any:
    if array.dtype.kind not in 'biufc':
        return to_plain(array.tolist())
    # PyTorch has no more than names for most unsigned types.
    wide = array.dtype.kind == 'u' and array.dtype.itemsize > 1
    return torch.as_tensor(array.astype(np.int64) if wide else array)


def _plain_scalar(value: Any) -> Any:
    """Python's own type of a scalar: numpy's floats and enums are subclasses of it."""
    kinds: tuple[type, ...] = (type(None), bool, int, float, complex, str, bytes)
    kind = next(kind for kind in kinds if isinstance(value, kind))
    return value if type(value) is kind else kind(value)


def from_plain(value: Any) -> Any:
    """Turn the ``HistoryBuffer`` of `to_plain` back, wherever it stands."""
    if isinstance(value, Mapping):
        if _HISTORY in value:
            values, counts = value['values'].cpu().numpy(), value['counts'].cpu().numpy()
            return HistoryBuffer(values, counts, value[_HISTORY])
        return {key: from_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    return value
