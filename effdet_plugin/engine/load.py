"""Checkpoints read without running anything that is in them."""

import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from effdet_plugin.errors import CheckpointError


def load_plain(path: Path | str, map_location: str = 'cpu') -> dict[str, Any]:
    """Read a checkpoint without running anything that is in it.

    Args:
        path: File of ``torch.save``.
        map_location: Device to load to.

    Returns:
        The file's dict: a checkpoint with ``state_dict``, or a bare state dict.

    Raises:
        CheckpointError: The file is missing, unreadable, damaged, needs unpickling of classes
            (which may run any code), or does not hold a dict.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f'{path}: no such checkpoint file')
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(_explain(path, str(error))) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, IndexError, TypeError) as error:
        first = str(error).splitlines()[:1]
        raise CheckpointError(
            f'{path}: damaged, or not a checkpoint of PyTorch ({" ".join(first)[:120]})'
        ) from None
    if not isinstance(checkpoint, dict):
        kind = type(checkpoint).__name__
        raise CheckpointError(f'{path}: holds a {kind}, not the dict of a checkpoint')
    return checkpoint


def _explain(path: Path, message: str) -> str:
    """One line for what torch's reader of plain files refused."""
    named = re.search(r'(?:GLOBAL|global:?) (?:GLOBAL )?([\w.]+\.[\w.]+)', message)
    if named is None:
        return f'{path}: damaged, or not a checkpoint of PyTorch'
    return (
        f'{path}: needs unpickling of {named[1]}, which may run any code, so it was not read; if '
        "you trust it, save its weights anew: torch.save({'state_dict': torch.load(FILE, "
        "weights_only=False)['state_dict']}, NEW)"
    )
