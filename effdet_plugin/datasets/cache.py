"""A bounded cache of decoded images, in memory or in a folder, that all loader workers share.

Nothing is thrown out: images are read in random order, so that any other choice of what to keep
finds as many. What does not fit is decoded, as without a cache.
"""

import hashlib
import logging
import mmap
import multiprocessing
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from effdet_plugin.errors import ConfigError, WriteError
from effdet_plugin.files import replacing

GIGABYTE = 1 << 30
DISK_GIGABYTES = 10.0
# Of a disk, for checkpoints; of the machine's memory.
_KEPT_FREE, _SHARE_OF_MEMORY = 2 * GIGABYTE, 1 / 8
_SUFFIX, _HEADER_BYTES = '.npy', 128
_DIGEST_BYTES = 32
# One entry of the memory's index for so many bytes of images: a grey thumbnail has more.
_BYTES_PER_ENTRY = 1 << 15
_ENTRY = np.dtype([('digest', f'S{_DIGEST_BYTES}'), ('place', 'i8'), ('h', 'i4'), ('w', 'i4')])
_PATIENCE_S = 1.0  # with a worker that was killed while it held the lock
_CLOSED = -1  # in place of the bytes that are used
# torchrun's, Open MPI's, and Slurm's: of this step, else as it was asked for.
_LOCAL_PROCESSES = (
    *('LOCAL_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_SIZE'),
    *('SLURM_STEP_TASKS_PER_NODE', 'SLURM_NTASKS_PER_NODE'),
)
# Of a container, in versions 2 and 1 of Linux's control groups.
_MEMORY_LIMITS = (
    '/sys/fs/cgroup/memory.max',
    '/sys/fs/cgroup/memory/memory.limit_in_bytes',
)


class Cache:
    """Keeps images until its bytes are used up.

    All workers share the count of bytes. Each of several processes of a training on a machine may
    add its share of what is left.

    Args:
        limit: In bytes.
        used: Bytes that are used already.
    """

    def __init__(self, limit: int, used: int = 0) -> None:
        self.limit = used + max(limit - used, 0) // _local_processes()
        # Of the spawn context: forked workers inherit it, and others can be sent it.
        self._count = multiprocessing.get_context('spawn').Value('q', used)

    @property
    def used(self) -> int:
        """Bytes that are used; below 0 where the cache is closed. Read without the lock."""
        return int(self._count.get_obj().value)

    def get(self, key: str) -> np.ndarray | None:
        """Return the image ``(H, W, 3)`` of a key, a copy; None if it is not here."""
        raise NotImplementedError

    def put(self, key: str, image: np.ndarray) -> None:
        """Keep an image ``(H, W, 3)`` of uint8, if it fits."""
        raise NotImplementedError

    def take(self, count: int) -> int | None:
        """Reserve bytes; return how many were used before, None if there are not so many left."""
        with self.locked() as is_open:
            used = self.used
            if not is_open or used + count > self.limit:
                return None
            self._count.get_obj().value = used + count
            return used

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold the lock; False where the cache is closed, or was by a worker that still holds it.

        Nobody can take the lock of a worker that was killed: waiting for it once is enough.
        """
        lock = self._count.get_lock()
        if self.used < 0 or not lock.acquire(timeout=_PATIENCE_S):
            self.close('a worker that was stopped holds its lock')
            yield False
            return
        try:
            yield self.used >= 0
        finally:
            lock.release()

    def close(self, reason: str) -> None:
        """Take no more, in all workers; the first one tells why."""
        if self.used >= 0:
            self._count.get_obj().value = _CLOSED
            print_log(f'the cache takes no more images: {reason}', 'current', logging.WARNING)


class MemoryCache(Cache):
    """In memory that forked workers share; its pages are taken as they are filled."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        try:
            self._pixels = _shared(self.limit, np.dtype('u1'))
            self._index = _shared(max(self.limit // _BYTES_PER_ENTRY, 64), _ENTRY)
        except (OSError, OverflowError, ValueError, MemoryError) as error:
            raise ConfigError(
                f'cache: {limit / GIGABYTE:g} GB of memory cannot be had ({error}); give less'
            ) from error

    def __reduce__(self) -> Any:
        raise ConfigError(
            'a cache in memory is shared by forked workers only: set '
            "env_cfg.mp_cfg.mp_start_method='fork', or let cache name a folder"
        )

    def get(self, key: str) -> np.ndarray | None:
        """See `Cache.get`."""
        with self.locked() as is_open:
            entry = self._index[self._find(_digest(key))].copy() if is_open else None
        if entry is None or not entry['digest']:
            return None
        place, shape = int(entry['place']), (int(entry['h']), int(entry['w']), 3)
        return self._pixels[place : place + shape[0] * shape[1] * 3].reshape(shape).copy()

    def put(self, key: str, image: np.ndarray) -> None:
        """See `Cache.put`."""
        place = self.take(image.nbytes) if _is_kept(image) else None
        if place is None:
            return
        self._pixels[place : place + image.nbytes] = image.reshape(-1)
        digest = _digest(key)
        with self.locked() as is_open:  # others see an entry when its pixels are there
            at = self._find(digest) if is_open else None
            if at is not None and not self._index[at]['digest']:
                self._index[at] = (digest, place, *image.shape[:2])

    def _find(self, digest: bytes) -> int:
        """Return the entry of a digest, or the empty one where it belongs."""
        count = len(self._index)
        at = int(digest, 16) % count
        # There are always empty ones: images are larger than `_BYTES_PER_ENTRY`, see `_is_kept`.
        while self._index[at]['digest'] not in (b'', digest):
            at = (at + 1) % count
        return at


class DiskCache(Cache):
    """Image files in a folder that later trainings use, too. Files are written atomically."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        super().__init__(limit, _bytes_in(folder))

    def get(self, key: str) -> np.ndarray | None:
        """See `Cache.get`; a file that is damaged is none."""
        try:
            # A map fails where the header promises more than the file has.
            image = np.load(self._file(key), mmap_mode='r', allow_pickle=False)
            return np.array(image) if _is_image(image) else None
        except Exception:  # numpy raises half a dozen types for damaged files
            return None

    def put(self, key: str, image: np.ndarray) -> None:
        """See `Cache.put`; a full disk is told once, and nothing more is written."""
        file = self._file(key)
        if not _is_kept(image) or not 0 <= self.used < self.limit:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self.folder).free < _KEPT_FREE + image.nbytes:
                raise WriteError(f'{self.folder}: less than {_KEPT_FREE // GIGABYTE} GB are free')
            if self.take(image.nbytes + _HEADER_BYTES) is None:
                return
            with replacing(file) as part, part.open('wb') as out:
                np.save(out, image, allow_pickle=False)
        except OSError as error:
            self.close(str(error))

    def _file(self, key: str) -> Path:
        name = _digest(key).decode()
        return self.folder / name[:2] / f'{name}{_SUFFIX}'


def parse_cache(text: object) -> tuple[Path | None, float | None]:
    """Return folder (None: memory) and gigabytes (None: the default) of ``ram[:GB]``, ``DIR[:GB]``.

    Raises:
        ConfigError: No text, no place, not above 0, or more than the memory.
    """
    if not isinstance(text, str):
        raise ConfigError(f'cache={text!r}: give ram, ram:GB, DIR or DIR:GB as text, or None')
    place, colon, number = text.rpartition(':')
    try:
        size = float(number) if colon else None
    except ValueError:
        place, size = text, None  # a colon of the path
    if not colon:
        place = text
    if not place or (size is not None and not 0 < size * GIGABYTE < float('inf')):
        raise ConfigError(f'--cache {text}: give ram, ram:GB, DIR or DIR:GB, with GB above 0')
    folder = None if place == 'ram' else Path(place).expanduser()
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ConfigError(f'--cache {text}: {folder} is a file; give a folder')
    if folder is None and size is not None and size * GIGABYTE > (memory := _memory()):
        raise ConfigError(
            f'--cache {text}: there are {memory / GIGABYTE:.1f} GB of memory; give less'
        )
    return folder, size


def cache_in_words(text: str) -> str:
    """Return where images are kept, and how many bytes of them, as a line for the log."""
    folder, size = parse_cache(text)
    if folder is None:
        most = "an eighth of the machine's" if size is None else f'{size:g} GB'
        return f'decoded images are kept in memory: at most {most}'
    size, used = size or DISK_GIGABYTES, _bytes_in(folder) / GIGABYTE
    line = f'decoded images are kept in {folder}: at most {size:g} GB'
    if used < size:
        return line
    return f'{line}, of which {used:.3g} GB are there: no more are added'


def open_cache(text: object) -> Cache:
    """Make the cache that a text names, see `parse_cache`."""
    folder, size = parse_cache(text)
    if folder is not None:
        return DiskCache(folder, int((size or DISK_GIGABYTES) * GIGABYTE))
    return MemoryCache(int(_SHARE_OF_MEMORY * _memory() if size is None else size * GIGABYTE))


def _memory() -> int:
    """Return the bytes of the machine's memory, or of the container's where that is less."""
    try:
        found = [os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')]
    except (AttributeError, ValueError, OSError):  # not on this system
        found = [16 * GIGABYTE]
    for file in _MEMORY_LIMITS:
        with suppress(OSError, ValueError):  # not there; 'max'
            found.append(int(Path(file).read_text('ascii')))
    return min(found)


def _local_processes() -> int:
    """Return how many processes of a training its launcher has started on this machine."""
    for name in _LOCAL_PROCESSES:
        if found := re.match(r'\d+', os.environ.get(name, '')):  # Slurm's may be '8(x2)'
            return max(int(found[0]), 1)
    return 1


def _bytes_in(folder: Path) -> int:
    """Return the bytes of the images in a folder, without those that are being written."""
    count = 0
    for path in folder.glob(f'*/[!.]*{_SUFFIX}'):
        with suppress(FileNotFoundError):  # another training's, or just deleted
            count += path.stat().st_size
    return count


def _shared(count: int, dtype: np.dtype) -> np.ndarray:
    """Return zeros in memory that forked processes share."""
    return np.frombuffer(mmap.mmap(-1, max(count, 1) * dtype.itemsize), dtype)


def _digest(key: str) -> bytes:
    """Return a hash in hexadecimal: without zeros at the end, which numpy's strings drop."""
    data = key.encode('utf-8', 'surrogateescape')
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES // 2).hexdigest().encode()


def _is_image(image: np.ndarray) -> bool:
    return image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def _is_kept(image: np.ndarray) -> bool:
    """Whether an image is kept; of tiny ones nothing is gained."""
    return _is_image(image) and image.nbytes > 2 * _BYTES_PER_ENTRY
