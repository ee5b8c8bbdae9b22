"""Files: written atomically, read with a one-line error."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from effdet_plugin.errors import DatasetError, WriteError

RGBImage = NDArray[np.uint8]  # (H, W, 3)

PART = '.part-'  # in the name of a file that is being written
_BLOCK_BYTES = 1 << 20
_REMEDIES = {
    errno.ENOSPC: 'free some space or choose another folder',
    errno.EDQUOT: 'free some space or choose another folder',
    errno.EFBIG: 'the file system or a limit of this process allows no larger file',
    errno.EROFS: 'choose a folder that can be written',
    errno.EACCES: 'choose a folder that can be written',
    errno.EPERM: 'choose a folder that can be written',
    errno.ENOTDIR: 'a file is in the way: remove it or choose another folder',
    errno.EEXIST: 'a file is in the way: remove it or choose another folder',
    errno.EISDIR: 'a folder is in the way: remove it',
    errno.ENAMETOOLONG: 'choose a shorter name',
    errno.EIO: 'the disk reports damage',
}


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block succeeds.

    The bytes are flushed to disk before the rename, so that neither a killed process nor a crashed
    machine leaves a partial file. Missing folders are made.

    Args:
        path: File to write.

    Raises:
        WriteError: The disk is full, the folder cannot be written, something is in the way.
    """
    path = Path(path)
    with write_errors(path):
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


@contextmanager
def write_errors(path: Path | str) -> Iterator[None]:
    """Turn the system's refusal to write into one line.

    Args:
        path: What is written; for the line.

    Raises:
        WriteError: Names the path, the system's reason and what to do.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        raise WriteError(
            f'{path}: cannot be opened or written ({error.strerror}): {_REMEDIES[error.errno]}'
        ) from error


def write_atomically(path: Path | str, content: bytes | str) -> None:
    """Write a file atomically; one that has this content already is left as it is.

    Args:
        path: File to write.
        content: Bytes, or text that is written as UTF-8.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    with write_errors(path):
        if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
            return
    with replacing(path) as part:
        part.write_bytes(data)


def remove_parts(folder: Path | str) -> list[Path]:
    """Remove the temporary files that a killed process has left in ``folder``; return them."""
    parts = sorted(Path(folder).glob(f'.*{PART}*'))
    for part in parts:
        part.unlink(missing_ok=True)
    return parts


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        DatasetError: It cannot be read, or is no regular file: a pipe or device has no end.
    """
    try:
        if path.exists() and not is_regular(path):
            raise DatasetError(f'{path}: cannot be read (no regular file)')
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f'{path}: cannot be read ({error.strerror})') from error
    except (ValueError, MemoryError) as error:  # a NUL in the name; terabytes that are promised
        raise DatasetError(f'{path}: cannot be read ({error or "too large"})') from error


def is_regular(path: Path) -> bool:
    """Return whether a path is a file with an end, or a link to one; no pipe, device or folder."""
    return os.path.isfile(path)


def read_text(path: Path) -> str:
    """Read a text file, with or without a byte-order mark.

    Raises:
        DatasetError: It cannot be read, or is not UTF-8 (or UTF-16 with its mark).
    """
    content = read_bytes(path)
    encoding = 'utf-16' if content[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DatasetError(f'{path}: not UTF-8 ({error.reason}): save it as UTF-8') from error


def read_json(path: Path) -> Any:
    """Read a json file.

    Raises:
        DatasetError: It cannot be read or is damaged; the message names the file and the line.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DatasetError(
            f'{path}: broken json ({error.msg} in line {error.lineno}): export it again'
        ) from error
    except (RecursionError, ValueError) as error:
        raise DatasetError(f'{path}: broken json ({error}): export it again') from error


def write_image(path: Path, image: RGBImage) -> None:
    """Write an RGB image (H, W, 3) atomically; the suffix sets the format.

    Raises:
        DatasetError: The format cannot be written.
    """
    is_encoded, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not is_encoded:
        raise DatasetError(
            f'{path}: cannot be written: OpenCV has no encoder for it; use .jpg or .png'
        )
    write_atomically(path, data.tobytes())


def sha256(*paths: Path) -> str:
    """Return the hash of the files, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open('rb') as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


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
