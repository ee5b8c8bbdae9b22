"""Writing the result: whole or not at all, and the same bytes for the same input."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effdet_plugin.errors import CheckpointError
from effdet_plugin.files import replacing

FORMATS = ('mmengine', 'effdet', 'npz')


def write(
    path: str | Path, format: str, state: Mapping[str, Tensor], meta: Mapping[str, Any]
) -> None:
    """Write converted weights.

    Args:
        path: the file; what is there is replaced.
        format: ``'mmengine'`` (with meta), ``'effdet'`` (plain state dict) or ``'npz'``.
        state: tensors by the names of that format.
        meta: of an mmengine checkpoint.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    with _replacing(path) as part, part.open('wb') as file:
        # A file, not a path: torch.save would write the temporary name into it.
        if format == 'npz':
            np.savez(file, **{name: value.numpy() for name, value in state.items()})  # type: ignore[arg-type]
        elif format == 'effdet':
            torch.save(dict(state), file)
        else:
            torch.save({'meta': dict(meta), 'state_dict': dict(state)}, file)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    with _replacing(path) as part:
        part.write_text(text, encoding='utf-8')


@contextmanager
def _replacing(path: str | Path) -> Iterator[Path]:
    try:
        with replacing(path) as part:
            yield part
    except OSError as error:
        raise CheckpointError(f'{path}: cannot be written: {error.strerror or error}') from error
