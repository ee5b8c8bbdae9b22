"""What every reader yields: names and shapes at once, values when asked for."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from effdet_plugin.convert.architecture import Shapes
from effdet_plugin.convert.rules import Dialect
from effdet_plugin.errors import CheckpointError, UserError

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """Tensors of one checkpoint.

    Attributes:
        path: where they were found.
        format: in words.
        dialect: how they are named.
        shapes: shapes by the source's own names.
        read: gives a tensor by its own name, in its own type.
        sha256: of the file, or of all files of a checkpoint together.
        left_out: own name -> reason, for what the reader itself set aside.
        meta: what the checkpoint says about itself (classes, anchors), for our own.
    """

    path: Path
    format: str
    dialect: Dialect
    shapes: Shapes
    read: Callable[[str], Tensor]
    sha256: str
    left_out: dict[str, str] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def damage_is_reported(path: Path) -> Iterator[None]:
    """Turn whatever a parser of a foreign format raises on damaged input into one line.

    zipfile, tarfile, numpy, h5py and torch raise a dozen types between them, none promised.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(
            f'{path}: no such file or folder, nor the name of a release (d0, d3-640, lite2, ...)'
        ) from error
    except Exception as error:
        reason = ' '.join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f'{path}: cut off or damaged, or not readable: {reason}') from error


def sha256(*paths: Path) -> str:
    """Hash of the files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open('rb') as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()
