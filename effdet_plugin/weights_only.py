"""Files of ``torch.save``: what they may hold, and how much, when nothing of them is to run.

Beside tensors and plain types the allow-list has what mmengine's own ``CheckpointHook`` writes:
``HistoryBuffer`` (its record of a logged number), arrays and scalars of numpy. numpy's functions
are replaced by stand-ins, since ``dtype.__setstate__`` believes every flag that a file gives it.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZIP_STORED, ZipFile, is_zipfile

import numpy as np
import torch
from torch import Tensor

from effdet_plugin.errors import CheckpointError

FORCE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
_FORCE_NOT = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
_SLACK_BYTES = 1 << 20
_MAX_DEPTH = 100
_MAX_VALUES = 10_000_000  # a checkpoint of the largest network has some 100,000
_PLAIN_DTYPE = re.compile(r'[?biufcSU]\d*')


def force_weights_only() -> None:
    """Make every ``torch.load`` of this process, and of those it starts, refuse to run code.

    This reaches loaders of mmengine and timm that ask for ``weights_only=False``.
    """
    os.environ.pop(_FORCE_NOT, None)  # torch refuses to load anything where both are set
    os.environ[FORCE] = '1'


@contextmanager
def weights_only_loads(safe_globals: Sequence[Any] = ()) -> Iterator[None]:
    """Do the same for the time of a block, in which the allow-list is in force.

    Args:
        safe_globals: Further classes without behaviour that files may hold.
    """
    settings = {name: os.environ.get(name) for name in (FORCE, _FORCE_NOT)}
    # Classes that others have allowed may be under the names of the stand-ins.
    allowed = torch.serialization.get_safe_globals()
    force_weights_only()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([*_ALLOWED, *safe_globals])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed)
        for name, value in settings.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def load_weights_only(
    path: Path | str, map_location: Any = 'cpu', safe_globals: Sequence[Any] = ()
) -> dict[str, Any]:
    """Load a file of ``torch.save`` without running anything that is in it.

    Args:
        path: The file.
        map_location: Device to load to.
        safe_globals: Further classes without behaviour that the file may hold.

    Returns:
        The file's dict: a checkpoint with ``state_dict``, or a bare state dict.

    Raises:
        CheckpointError: The file is missing, unreadable, damaged, needs unpickling of classes
            (which may run any code), does not hold a dict, or has weights that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f'{path}: no such checkpoint file')
    try:
        check_archive(path)
        with weights_only_loads(safe_globals):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
        checkpoint = check_content(checkpoint, path.stat().st_size)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from None
    except UnpicklingError as error:
        raise CheckpointError(explain_refusal(path, str(error))) from None
    except Exception as error:  # of a damaged file, torch and zipfile raise a dozen types
        first = str(error).splitlines()[:1]
        raise CheckpointError(
            f'{path}: damaged, or not a checkpoint of PyTorch ({" ".join(first)[:120]})'
        ) from None
    if not isinstance(checkpoint, dict):
        kind = type(checkpoint).__name__
        raise CheckpointError(f'{path}: holds a {kind}, not the dict of a checkpoint')
    if name := first_not_finite(checkpoint):
        raise CheckpointError(
            f'{path}: the weights are not finite: {name} holds NaN or infinity; use an earlier '
            'checkpoint'
        )
    return checkpoint


def first_not_finite(checkpoint: Mapping[Any, Any]) -> str | None:
    """Return the name of the first weight that holds NaN or infinity; None if all are finite.

    Args:
        checkpoint: A checkpoint, of which both copies of the weights are read (a run with a moving
            average has two), or a bare state dict.
    """
    for part in (checkpoint.get('state_dict', checkpoint), checkpoint.get('ema_state_dict')):
        for name, value in part.items() if isinstance(part, Mapping) else ():
            if isinstance(value, torch.Tensor) and not is_finite(value):
                return str(name).removeprefix('module.')
    return None


@torch.no_grad()
def is_finite(value: torch.Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity (true for integers)."""
    if not value.is_floating_point() or not value.numel() or value.is_meta:
        return True
    # float8 has no comparison. The extremes need no memory of the tensor's size.
    extremes = torch.aminmax(value if value.itemsize > 1 else value.float())
    return bool(torch.stack(list(extremes)).isfinite().all())


def explain_refusal(path: Path | str, message: str) -> str:
    """Return one line for what torch's weights-only unpickler refused, given its message."""
    named = re.search(r'(?:GLOBAL|global:?) (?:GLOBAL )?([\w.]+)', message)
    if named is None:
        return f'{path}: damaged, or not a checkpoint of PyTorch'
    return (
        f'{path}: needs unpickling of {named[1]}, which may run any code, so it was not read; if '
        "you trust it, save its weights again: torch.save({'state_dict': torch.load(FILE, "
        "weights_only=False)['state_dict']}, NEW)"
    )


def check_archive(path: Path) -> None:
    """Refuse a zip file that unpacks to more than its size; ``torch.save`` does not compress.

    Raises:
        CheckpointError: A member is compressed, or members share their bytes.
    """
    if not is_zipfile(path):
        return
    with ZipFile(path) as file:
        members = file.infolist()
    packed = next((m.filename for m in members if m.compress_type != ZIP_STORED), None)
    if packed is not None:
        raise CheckpointError(
            f'{packed} in it is compressed, as torch.save does not do: unpack the file, and zip '
            'it again without compression (zip -0)'
        )
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise CheckpointError('its members claim more bytes than the file has')


def check_content(content: Any, num_bytes: int) -> Any:
    """Refuse content that would cost more than its file, or that nobody could walk over.

    Args:
        content: What ``torch.load`` returned; changed in place where it holds stand-ins.
        num_bytes: Size of the file.

    Returns:
        The content with arrays of numpy in the places of their stand-ins.

    Raises:
        CheckpointError: A tensor that is not dense or has more elements than were stored; nested
            too deeply; a value that holds itself.
    """
    return _Walk(num_bytes).visit(content, 'it', 0)[0]


class _Walk:
    """One walk over the content of a file."""

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self.storages: set[int] = set()  # addresses of those that are counted
        self.stored_bytes = 0
        self.seen: dict[int, tuple[Any, int]] = {}
        self.kept: list[Any] = []  # alive, so that no id is given twice
        self.open: set[int] = set()

    def visit(self, value: Any, name: str, depth: int) -> tuple[Any, int]:
        """Return a value without stand-ins, and how many values a copy of it would have."""
        if isinstance(value, Tensor):
            self._check_tensor(value, name)
            return value, 1
        if isinstance(value, _Array | _History):
            return value.real(), 1
        if isinstance(value, _DType):
            return value.dtype, 1
        if not isinstance(value, dict | list | tuple):
            return value, 1
        if id(value) in self.seen:
            return self.seen[id(value)]
        if id(value) in self.open:
            raise CheckpointError(f'{name} holds itself')
        if depth >= _MAX_DEPTH:
            raise CheckpointError(f'{name} is nested more than {_MAX_DEPTH} deep')
        self.open.add(id(value))
        self.kept.append(value)
        new, count = self._visit_parts(value, name, depth)
        if count > _MAX_VALUES:
            raise CheckpointError(f'{name} repeats its parts to more than {_MAX_VALUES:,} values')
        self.open.remove(id(value))
        # A tuple cannot be changed in place; named ones are of torch and hold numbers only.
        result = tuple(new) if type(value) is tuple else value
        self.seen[id(value)] = result, count
        return result, count

    def _visit_parts(self, parts: Any, name: str, depth: int) -> tuple[Any, int]:
        new = list(parts) if isinstance(parts, tuple) else parts
        items = list(parts.items()) if isinstance(parts, dict) else list(enumerate(parts))
        count = 1
        for key, part in items:
            new[key], size = self.visit(part, f'{key}'[:80], depth + 1)
            count += size
        return new, count

    def _check_tensor(self, tensor: Tensor, name: str) -> None:
        is_dense = tensor.layout is torch.strided and not tensor.is_nested
        if not is_dense or tensor.is_quantized or tensor.device.type == 'meta':
            raise CheckpointError(f'{name} is no dense tensor')
        storage = tensor.untyped_storage()
        if tensor.numel() * tensor.element_size() > storage.nbytes():
            raise CheckpointError(f'{name} {list(tensor.shape)} has more elements than were stored')
        if storage.data_ptr() not in self.storages:
            self.storages.add(storage.data_ptr())
            self.stored_bytes += storage.nbytes()
        if self.stored_bytes > self.num_bytes + _SLACK_BYTES:
            raise CheckpointError(f'{name} and those before it have more bytes than the file')


class _DType:
    """A stand-in for ``numpy.dtype``: of numbers and strings only."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not _PLAIN_DTYPE.fullmatch(code):
            raise ValueError(f'an array of {code[:20]!r}')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take the byte order, the only one of the fields that plain types differ in."""
        self.dtype = np.dtype(self.dtype.newbyteorder(state[1]).str)


class _Array:
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


class _History:
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


def _scalar(stand_in: _DType, content: bytes) -> Any:
    return np.frombuffer(content, stand_in.dtype)[0]


def _named(target: Callable[..., Any], path: str) -> Callable[..., Any]:
    """Name a function or class as in pickles: torch finds what is allowed by these names."""
    target.__module__, _, target.__name__ = path.rpartition('.')
    target.__qualname__ = target.__name__
    return target


_ALLOWED: list[Any] = [
    _named(_DType, 'numpy.dtype'),
    _named(_Array, 'numpy.ndarray'),
    _named(_History, 'mmengine.logging.history_buffer.HistoryBuffer'),
    # Names a method of HistoryBuffer in its state, and nothing is got.
    _named(lambda *_: None, 'builtins.getattr'),
    _named(lambda: b'', 'builtins.bytes'),  # those of an empty array
]
for _package in ('numpy.core', 'numpy._core'):  # of numpy 1 and 2
    _ALLOWED += [
        _named(lambda *_: _Array(), f'{_package}.multiarray._reconstruct'),
        _named(lambda *arguments: _scalar(*arguments), f'{_package}.multiarray.scalar'),
    ]
