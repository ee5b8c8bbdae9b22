"""A bounded cache of decoded images, in memory or in a folder, that all loader workers share.

Nothing is thrown out: images are read in random order, so that any other choice of what to keep
finds as many. What does not fit is decoded, as without a cache.
"""

import hashlib
import logging
import mmap
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from torch.utils.data import get_worker_info

from effdet_plugin.errors import ConfigError, WriteError
from effdet_plugin.files import replacing

GIGABYTE = 1 << 30
DISK_GIGABYTES = 10.0
# Of a disk, for checkpoints; of the machine's memory.
_KEPT_FREE, _SHARE_OF_MEMORY = 2 * GIGABYTE, 1 / 8
_SUFFIX, _HEADER_BYTES = '.npy', 128
_DIGEST_BYTES = 16
# One entry of the memory's index for so many bytes of images: a grey thumbnail has more.
_BYTES_PER_ENTRY = 1 << 15
_ENTRY = np.dtype([('digest', f'S{_DIGEST_BYTES}'), ('place', 'i8'), ('h', 'i4'), ('w', 'i4')])
_PATIENCE_S = 1.0  # with a worker that was killed while it held the lock


class Cache:
    """Keeps images until its bytes are used up.

    Forked workers share the count of bytes. Where workers are spawned, and for each of several
    processes of a training, the bytes are divided.

    Args:
        limit: In bytes.
        used: Bytes that are used already.
    """

    def __init__(self, limit: int, used: int = 0) -> None:
        self.limit = limit // int(os.environ.get('LOCAL_WORLD_SIZE', '1'))
        self.lock = multiprocessing.Lock()
        self._used = _shared(1, np.dtype('i8'))
        self._used[0] = used

    def get(self, key: str) -> np.ndarray | None:
        """Return the image ``(H, W, 3)`` of a key, a copy; None if it is not here."""
        raise NotImplementedError

    def put(self, key: str, image: np.ndarray) -> None:
        """Keep an image ``(H, W, 3)`` of uint8, if it fits."""
        raise NotImplementedError

    def take(self, count: int) -> int | None:
        """Reserve bytes; return how many were used before, None if there are not so many left."""
        if not self.lock.acquire(timeout=_PATIENCE_S):
            return None
        try:
            used = int(self._used[0])
            if used + count > self.limit:
                return None
            self._used[0] = used + count
            return used
        finally:
            self.lock.release()

    def close(self) -> bool:
        """Take no more; return whether it was open: one process is to tell."""
        rest = self.limit - int(self._used[0])
        return self.take(max(rest, 0)) is not None and rest > 0


class MemoryCache(Cache):
    """In memory that forked workers share; its pages are taken as they are filled."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._pixels = _shared(self.limit, np.dtype('u1'))
        self._index = _shared(max(self.limit // _BYTES_PER_ENTRY, 64), _ENTRY)

    def __reduce__(self) -> Any:  # to spawned workers
        return _Later, (MemoryCache, (self.limit,))

    def get(self, key: str) -> np.ndarray | None:
        """See `Cache.get`."""
        if not self.lock.acquire(timeout=_PATIENCE_S):
            return None
        try:
            entry = self._index[self._find(_digest(key))].copy()
        finally:
            self.lock.release()
        if not entry['digest']:
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
        if self.lock.acquire(timeout=_PATIENCE_S):  # others see an entry when its pixels are there
            try:
                at = self._find(digest)
                if not self._index[at]['digest']:
                    self._index[at] = (digest, place, *image.shape[:2])
            finally:
                self.lock.release()

    def _find(self, digest: bytes) -> int:
        """Return the entry of a digest, or the empty one where it belongs."""
        count = len(self._index)
        at = int(digest, 16) % count
        # There are always empty ones: images are larger than `_BYTES_PER_ENTRY`, see `_is_kept`.
        while self._index[at]['digest'] not in (b'', digest):
            at = (at + 1) % count
        return at


class DiskCache(Cache):
    """Files in a folder, which later trainings find; each is written whole or not at all."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        files = list(folder.glob(f'*/*{_SUFFIX}')) if folder.is_dir() else []
        super().__init__(limit, sum(path.stat().st_size for path in files))

    def __reduce__(self) -> Any:  # to spawned workers
        return _Later, (DiskCache, (self.folder, self.limit))

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
        if not _is_kept(image) or int(self._used[0]) >= self.limit:
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
            if self.close():
                print_log(f'the cache takes no more images: {error}', 'current', logging.WARNING)

    def _file(self, key: str) -> Path:
        name = hashlib.blake2b(key.encode('utf-8', 'surrogateescape'), digest_size=16).hexdigest()
        return self.folder / name[:2] / f'{name}{_SUFFIX}'


class _Later:
    """A cache in a spawned worker, which knows only when it reads how many of them there are."""

    def __init__(self, kind: Any, arguments: tuple[Any, ...]) -> None:
        self._kind, self._arguments = kind, arguments
        self._cache: Cache | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith('_'):
            raise AttributeError(name)
        if self._cache is None:
            info = get_worker_info()
            share = self._arguments[-1] // (info.num_workers if info else 1)
            self._cache = self._kind(*self._arguments[:-1], share)
        return getattr(self._cache, name)


def parse_cache(text: str) -> tuple[Path | None, float | None]:
    """Return folder (None: memory) and gigabytes (None: the default) of ``ram[:GB]``, ``DIR[:GB]``.

    Raises:
        ConfigError: No place, or not above 0.
    """
    place, colon, number = str(text).rpartition(':')
    try:
        size = float(number) if colon else None
    except ValueError:
        place, size = str(text), None  # a colon of the path
    if not colon:
        place = str(text)
    if not place or (size is not None and not 0 < size < float('inf')):
        raise ConfigError(f'--cache {text}: give ram, ram:GB, DIR or DIR:GB, with GB above 0')
    folder = None if place == 'ram' else Path(place).expanduser()
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ConfigError(f'--cache {text}: {folder} is a file; give a folder')
    return folder, size


def cache_in_words(text: str) -> str:
    """Return where images are kept, and how many bytes of them, as a line for the log."""
    folder, size = parse_cache(text)
    if size is None and folder is None:
        return "decoded images are kept in memory: at most an eighth of the machine's"
    return f'decoded images are kept in {folder or "memory"}: at most {size or DISK_GIGABYTES:g} GB'


def open_cache(text: str) -> Cache:
    """Make the cache that a text names, see `parse_cache`."""
    folder, size = parse_cache(text)
    if folder is not None:
        return DiskCache(folder, int((size or DISK_GIGABYTES) * GIGABYTE))
    if size is None:
        return MemoryCache(int(_SHARE_OF_MEMORY * _memory()))
    return MemoryCache(int(size * GIGABYTE))


def _memory() -> int:
    try:
        return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    except (AttributeError, ValueError, OSError):  # not on this system
        return 16 * GIGABYTE


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
