"""One interface to files of all runtimes: arrays in, arrays out."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from effdet_plugin.errors import CheckpointError, ConfigError
from effdet_plugin.export.metadata import SIZE_STEP, Metadata
from effdet_plugin.files import is_regular

Array = NDArray[Any]
# By name, see `effdet_plugin.export.metadata.OUTPUTS`, batch first:
# postprocess  boxes (B, M, 4) float32 xyxy in pixels of the network input, 0 in padding;
#              scores (B, M) float32, descending, 0 in padding; labels (B, M) int64, -1 in padding;
#              num (B,) int64 real rows.
# decoded      boxes (B, N, 4) float32 xyxy of all anchors; scores (B, N, C) float32 in 0..1.
# raw          logits (B, N, C) float32; deltas (B, N, 4) float32 (tx, ty, tw, th).
Outputs = Mapping[str, Array]

MAX_FILE_BYTES = (1 << 31) - 1  # protobuf's limit; the largest network, D7x, has 0.3 GB
SUFFIXES = {'.onnx': 'onnx', '.xml': 'openvino', '.pt2': 'pt2', '.tflite': 'tflite'}
_HEAD_BYTES = 4096


class Runtime(Protocol):
    """A loaded file.

    Attributes:
        metadata: What the file says about itself.
    """

    metadata: Metadata

    def __call__(self, images: Array) -> Outputs:
        """Run a batch.

        Args:
            images: ``(B, 3, H, W)`` float32, normalised and padded; for files of uint8 input
                ``(B, h, w, 3)`` uint8 RGB of any size.

        Returns:
            The file's arrays by name; see `Outputs`.

        Raises:
            ConfigError: Images of another form or size.
        """


def is_runtime_file(path: Path | str) -> bool:
    """Return whether a path names a file of a runtime: one of `SUFFIXES`."""
    return Path(str(path)).suffix.lower() in SUFFIXES


def load_runtime(
    path: Path | str, device: str | None = 'cpu', threads: int | None = None
) -> Runtime:
    """Load a file that `effdet_plugin.export.api.export` wrote. Nothing in it is executed as code.

    Args:
        path: ``.onnx``, ``.xml`` (its ``.bin`` beside it), ``.pt2`` or ``.tflite``.
        device: ``'cpu'``; ``'cuda'`` where the runtime has it. None: the CPU.
        threads: Number of threads; None: the runtime's default.

    Raises:
        CheckpointError: The file is missing, cut, of another program or of another format than its
            name says.
        InstallError: The runtime is not installed.
    """
    path = Path(path)
    kind = format_of(path)
    loaded: Runtime = import_module(f'effdet_plugin.export.{kind}').load(
        path, device or 'cpu', threads
    )
    if loaded.metadata.format != kind:
        raise CheckpointError(
            f'{path}: is a file for {loaded.metadata.format}, which cannot be run here'
        )
    return loaded


def format_of(path: Path) -> str:
    """Return the format of a file, whose suffix and first bytes must agree.

    Raises:
        CheckpointError: They do not, or there is no such file.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise CheckpointError(f'{path}: no file of a runtime; known are {", ".join(SUFFIXES)}')
    if not is_regular(path):
        raise CheckpointError(f'{path}: no such file')
    if path.stat().st_size > MAX_FILE_BYTES:
        raise CheckpointError(f'{path}: larger than 2 GB, which none of our files is')
    with path.open('rb') as file:
        found = _sniff(file.read(_HEAD_BYTES))
    named = SUFFIXES[path.suffix.lower()]
    if found != named:
        known = f'the content of {found}' if found else 'no content of a runtime'
        raise CheckpointError(
            f'{path}: has {known}, not that of its suffix; was it renamed or cut?'
        )
    return named


def _sniff(head: bytes) -> str | None:
    """Return the format that a file's first bytes belong to."""
    if head.startswith(b'PK\x03\x04'):
        return 'pt2'
    if head[4:8] == b'TFL3':
        return 'tflite'
    if b'<net' in head and head.lstrip().startswith(b'<'):
        return 'openvino'
    # ModelProto begins with field 1, ir_version, a small number, then field 2, the producer's name.
    if (
        head[:1] == b'\x08'
        and len(head) > 2
        and head[1] < 64
        and head[2] in (0x12, 0x1A, 0x22, 0x3A, 0x42)
    ):
        return 'onnx'
    return None


def check_images(images: Array, metadata: Metadata) -> None:
    """Check the images of a call.

    Raises:
        ConfigError: Another form, type or size than the file's.
    """
    if metadata.input == 'uint8':
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
            raise ConfigError(
                f'this file takes images (B, h, w, 3) of uint8, RGB; these are {images.shape} of '
                f'{images.dtype}'
            )
        return
    size = metadata.image_size
    if images.dtype != np.float32 or images.ndim != 4 or images.shape[1] != 3 or not images.size:
        fits = False
    elif size is None:
        fits = all(side % SIZE_STEP == 0 for side in images.shape[2:])
    else:
        fits = images.shape[2:] == tuple(size)
    if not fits:
        sides = f'multiples of {SIZE_STEP}' if size is None else f'{size[0]}, {size[1]}'
        raise ConfigError(
            f'this file takes images (B, 3, H, W) of float32 with sides {sides}; these are '
            f'{images.shape} of {images.dtype}'
        )
