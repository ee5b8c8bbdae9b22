"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from mmengine.fileio import LocalBackend, register_backend

PART = '.part-'  # in the name of a file that is being written


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Give a path to write to, beside ``path``, that takes its place when the block ends well.

    The bytes are on the disk before the name points to them, so that neither a killed process nor a
    crashed machine leaves half a file. Folders are made where missing.

    Args:
        path: File to write.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: writers choose a format by it.
    with NamedTemporaryFile(
        dir=path.parent, prefix=f'.{path.stem}{PART}', suffix=path.suffix, delete=False
    ) as file:
        part = Path(file.name)
    try:
        yield part
        _flush_to_disk(part)
        os.chmod(part, 0o666 & ~_umask())  # temporary files are private
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    _flush_to_disk(path.parent)


def remove_parts(folder: Path | str) -> list[Path]:
    """Remove what a killed process has left half-written in ``folder``; return it."""
    parts = sorted(Path(folder).glob(f'.*{PART}*'))
    for part in parts:
        part.unlink(missing_ok=True)
    return parts


@register_backend('atomic')
class AtomicBackend(LocalBackend):
    """mmengine's local files, whole or not at all: ``backend_args=dict(backend='atomic')``."""

    def put(self, obj: bytes, filepath: Path | str) -> None:
        """Write bytes to a file."""
        with replacing(filepath) as part:
            part.write_bytes(obj)

    def put_text(self, obj: str, filepath: Path | str, encoding: str = 'utf-8') -> None:
        """Write text to a file."""
        self.put(obj.encode(encoding), filepath)


def _flush_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)  # can only be read by setting it
    os.umask(mask)
    return mask
