"""Checkpoints: read with nothing of them run, and whether what they hold fits a network.

What a file may hold beside tensors and plain types is in `effdet_plugin.pickle_types`.
"""

import os
import re
import reprlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZIP_STORED, ZipFile, is_zipfile

import torch
from torch import Tensor, nn

from effdet_plugin.errors import CheckpointError
from effdet_plugin.pickle_types import ALLOWED, Array, DType, History

FORCE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
_FORCE_NOT = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
_SLACK_BYTES = 1 << 20
_MAX_DEPTH = 100
_MAX_VALUES = 10_000_000  # a checkpoint of the largest network has some 100,000
_EXTRA = re.compile(r'(?:^|\.)_extra_state$')  # torch's name for what a module keeps beside tensors

# Blocks of `weights_only_loads` in all threads, and what was set before the first of them.
_lock = threading.Lock()
_blocks: dict[object, Sequence[Any]] = {}
_before: dict[str, Any] = {}

Weights = dict[str, Tensor]
Classes = Sequence[str] | None


def force_weights_only() -> None:
    """Make every ``torch.load`` of this process, and of those it starts, refuse to run code.

    This reaches loaders of mmengine and timm that ask for ``weights_only=False``.
    """
    os.environ.pop(_FORCE_NOT, None)  # torch refuses to load anything where both are set
    os.environ[FORCE] = '1'


@contextmanager
def weights_only_loads(safe_globals: Sequence[Any] = ()) -> Iterator[None]:
    """Do the same for the time of a block, with the allow-list and more ``safe_globals``."""
    token = object()
    with _lock:
        if not _blocks:
            # Others may have allowed classes under the names of the stand-ins.
            _before['allowed'] = torch.serialization.get_safe_globals()
            names = os.environ.keys() & {FORCE, _FORCE_NOT}
            _before['settings'] = {name: os.environ[name] for name in names}
        _blocks[token] = safe_globals
        force_weights_only()
        _allow(chain(ALLOWED, *_blocks.values()))
    try:
        yield
    finally:
        with _lock:
            del _blocks[token]
            # The last of all threads: what one restores while another loads would let it run code.
            _allow(chain(ALLOWED, *_blocks.values()) if _blocks else _before['allowed'])
            if not _blocks and FORCE not in _before['settings']:
                del os.environ[FORCE]
            os.environ.update({} if _blocks else _before['settings'])


def _allow(classes: Iterable[Any]) -> None:
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(list(classes))


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
            if not isinstance(value, torch.Tensor):
                continue
            # A network computes in float32, where large numbers of float64 are infinite.
            if not is_finite(value.float() if value.dtype is torch.float64 else value):
                return str(name).removeprefix('module.')
    return None


@torch.no_grad()
def is_finite(value: torch.Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity (true for integers)."""
    value = torch.view_as_real(value) if value.is_complex() else value
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


def classes_of(checkpoint: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the class names that a checkpoint carries; None if it carries none.

    Raises:
        CheckpointError: What it carries in their place are no names.
    """
    node: Any = checkpoint
    for key in ('meta', 'dataset_meta', 'classes'):
        node = node.get(key) if isinstance(node, Mapping) else False
        # Not `or`: a tensor has no truth.
        if node is None or (isinstance(node, str | list | tuple | Mapping) and not node):
            return None
    classes = (node,) if isinstance(node, str) else node
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        raise CheckpointError(
            'the checkpoint has something else than a list of names in its '
            f'meta.dataset_meta.classes: {reprlib.repr(classes)}'
        )
    return tuple(classes) or None


def weights_of(checkpoint: Mapping[str, Any]) -> Weights:
    """Return the weights of a checkpoint or bare state dict, by the names of a bare model.

    Raises:
        CheckpointError: They are not tensors by name.
    """
    weights = checkpoint.get('state_dict', checkpoint)
    if not isinstance(weights, Mapping) or not weights:
        raise CheckpointError("the checkpoint's state_dict holds no tensors by name")
    for name, value in weights.items():
        if not isinstance(name, str) or not (isinstance(value, Tensor) or _EXTRA.search(name)):
            kind = type(value).__name__
            raise CheckpointError(
                f'the checkpoint holds a {kind} as {reprlib.repr(name)}, not a tensor by name'
            )
    return {name.removeprefix('module.'): value for name, value in weights.items()}


def num_classes_of(model: nn.Module) -> int | None:
    """Return the number of classes that a detector's head predicts; None if it does not say."""
    for detector in (model, getattr(model, 'roi_head', None)):
        count: int | None = getattr(getattr(detector, 'bbox_head', None), 'num_classes', None)
        if count is not None:
            return count
    return None


def check_compatible(weights: Weights, own: Weights, *, complete: bool) -> None:
    """Refuse weights of another network.

    Args:
        weights: Tensors to load.
        own: Tensors of the network.
        complete: Also refuse if some are missing.

    Raises:
        CheckpointError: Names the first tensor of another shape, or the first that is missing.
    """
    other = [n for n in own if n in weights and own[n].shape != weights[n].shape]
    missing = [n for n in own if n not in weights]
    if other:
        name = other[0]
        found = (
            f'{len(other)} tensors have other shapes, e.g. {name} {list(weights[name].shape)} for '
            f'{list(own[name].shape)}'
        )
    elif missing and (complete or len(missing) == len(own)):
        found = f'{len(missing)} of {len(own)} tensors are missing, e.g. {missing[0]}'
    else:
        return
    raise CheckpointError(
        f'the checkpoint does not match the config: {found}; use the config it was trained with'
    )


def check_classes(old: Classes, num_classes: int | None) -> None:
    """Refuse to predict with a checkpoint of another number of classes, where both are known.

    Raises:
        CheckpointError: The numbers differ.
    """
    if old is not None and num_classes is not None and len(old) != num_classes:
        raise CheckpointError(
            f'the checkpoint has {len(old)} classes, the config {num_classes}; use the config it '
            f'was trained with, or set num_classes={len(old)}'
        )


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
        if isinstance(value, Array | History):
            return value.real(), 1
        if isinstance(value, DType):
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
