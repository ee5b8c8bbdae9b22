"""Downloads: once, resumed after a break, of bounded size, with their hash kept and compared."""

import hashlib
import http.client
import os
import queue
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from effdet_plugin.errors import CheckpointError, escaped
from effdet_plugin.files import sha256

OFFLINE = 'EFFDET_PLUGIN_OFFLINE'  # set to anything but 0: nothing is downloaded
ATTEMPTS = 5  # in a row without a new byte
TIMEOUT_S = 30
MAX_BYTES = 8 << 30  # the largest release is below 1 GB
WEB = ('http://', 'https://')
_BLOCK_BYTES = 1 << 18
# torch.hub's and mmdet's form of a name that tells the start of its content's sha256. A hash
# without a letter is not told from a date.
_HASH_IN_NAME = re.compile(r'-(?=\d*[a-f])([0-9a-f]{8,64})\.\w+$')


def cache_dir(cache: str | Path | None = None) -> Path:
    """Return the folder for downloads: ``cache``, or one in torch.hub's."""
    return Path(cache) if cache is not None else Path(torch.hub.get_dir()) / 'effdet_plugin'


def local_path(place: str | Path) -> Path:
    """Return the path of a file that is given by its path or address; see `fetch`."""
    if str(place).startswith(WEB):
        return fetch(str(place), cache_dir(), str(place).rpartition('/')[2])
    return Path(place).expanduser()


def is_offline() -> bool:
    """Whether the environment forbids downloads; what is kept of earlier ones is used."""
    return os.environ.get(OFFLINE, '0') not in ('', '0')


def fetch(url: str, folder: Path, name: str, *, patience: float | None = None) -> Path:
    """Return the path of a file in ``folder``, downloaded unless it is there.

    A file is kept under its full address, with its sha256 beside it. Where that no longer fits the
    file is downloaded again; where the address tells a hash, another content is refused.

    Args:
        url: its address: https, or http with a warning.
        folder: of downloads.
        name: what to call it in messages.
        patience: Seconds for the answer, and for each further piece, where something else can be
            had instead: an attempt without a new byte is the last one. None: :data:`TIMEOUT_S`
            and :data:`ATTEMPTS`.

    Raises:
        CheckpointError: No network, no such file, more than :data:`MAX_BYTES`, another hash than
            the address tells, the connection breaks again and again, or downloads are forbidden.
    """
    if not url.startswith(WEB):
        raise CheckpointError(f'{name}: {url} is no address of https')
    parts = urlsplit(url).path.split('/')[-2:]
    readable = re.sub(r'[^\w.+-]', '_', '-'.join(filter(None, parts)))[-100:] or 'file'
    target = folder / hashlib.sha256(url.encode()).hexdigest()[:16] / readable
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target.parent):
            if not _is_whole(target):
                if is_offline():
                    raise CheckpointError(f'{name}: {OFFLINE} is set: nothing is downloaded')
                _fetch(url, target, name, patience)
    except urllib.error.HTTPError as error:
        raise CheckpointError(f'{name}: {url} answers {error.code} {error.reason}') from error
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        ConnectionError,
        TimeoutError,
        ValueError,  # an address that cannot be parsed
    ) as error:
        reason = getattr(error, 'reason', None) or error
        raise CheckpointError(
            f'{name}: cannot be downloaded ({reason}): check the network and try again, the '
            f'received part is kept; or download {url} elsewhere and give its path'
        ) from error
    except OSError as error:
        raise CheckpointError(f'{folder}: cannot keep downloads here: {error.strerror}') from error
    return target


def make_once(folder: Path, make: Callable[[], Path]) -> Path:
    """Return a file of the cache, made unless it is there with the content that it had.

    One process makes it, the others wait for it. What has failed while they waited has failed for
    them, too: each of them would wait for the same servers.

    Args:
        folder: Of this file alone.
        make: Writes it into the folder, atomically, and returns its path.

    Raises:
        CheckpointError: As `make` does, or the folder cannot be written.
    """
    began, failed = time.time(), folder / 'failed.txt'
    if found := made(folder):  # without the lock: the folder may be another user's
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if found := made(folder):
                return found
            if failed.exists() and failed.stat().st_mtime >= began:
                raise CheckpointError(failed.read_text(encoding='utf-8'))
            try:
                found = make()
            except CheckpointError as error:
                failed.write_text(str(error), encoding='utf-8')
                raise
            _hash_file(found).write_text(sha256(found))
            return found
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(f'{folder}: cannot keep files here: {reason}') from error


def made(folder: Path) -> Path | None:
    """Return the file that `make_once` has left in a folder; None if there is none."""
    kept = (path.with_suffix('') for path in sorted(folder.glob('*.sha256')))
    return next(filter(_is_whole, kept), None)


def forget(path: Path) -> None:
    """Remove a download that is of no use, so that the next attempt does not find it."""
    path.unlink(missing_ok=True)
    _hash_file(path).unlink(missing_ok=True)


def is_reachable(url: str, patience: float) -> bool:
    """Whether a server answers anything within some seconds; through a proxy if there is one."""
    try:
        _open(urllib.request.Request(url, method='HEAD'), patience).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return True


def _fetch(url: str, target: Path, name: str, patience: float | None) -> None:
    if not url.startswith('https://'):
        print(
            f'warning: {escaped(url)} is not encrypted: anybody on the way can change it',
            file=sys.stderr,
        )
    partial = target.with_name(target.name + '.part')
    _download(url, partial, name, patience)
    with partial.open('rb') as file:
        head = file.read(200).lstrip().lower()
    # Kept, they would be what the address has from then on.
    if not head or head.startswith((b'<!doctype html', b'<html')):
        partial.unlink()
        found = 'a web page' if head else 'nothing'
        raise CheckpointError(
            f'{name}: {url} answers with {found}, not with a file: give the address of the file '
            'itself (of GitHub and Hugging Face the one of "raw" or "download")'
        )
    digest = sha256(partial)
    known = _HASH_IN_NAME.search(urlsplit(url).path)
    if known and not digest.startswith(known[1]):
        partial.unlink()
        raise CheckpointError(
            f'{name}: {url} has the sha256 {digest[:16]}..., not {known[1]}... as its name says: '
            'damaged or exchanged; try again, or ask who offers it'
        )
    _hash_file(target).write_text(digest)
    os.replace(partial, target)


def _is_whole(target: Path) -> bool:
    """Whether a download is there with the content that it had."""
    kept = _hash_file(target)
    return target.exists() and kept.exists() and kept.read_text() == sha256(target)


def _hash_file(target: Path) -> Path:
    return target.with_name(target.name + '.sha256')


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time download to a folder; the others find its file afterwards."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (folder / '.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(url: str, partial: Path, name: str, patience: float | None) -> None:
    failures, attempts = 0, ATTEMPTS if patience is None else 1
    while True:
        before = _size(partial)
        try:
            if _continue(url, partial, name, patience):
                return
            error: Exception = ConnectionError('the connection ended early')
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException) as broken:
            if _is_local(broken):
                raise
            error = broken
        failures = 0 if _size(partial) > before else failures + 1
        if failures >= attempts or _is_unreachable(error):
            raise error
        time.sleep(min(2**failures - 1, 10) / 4)


def _continue(url: str, partial: Path, name: str, patience: float | None) -> bool:
    """Download the rest of a file; return whether it is complete now."""
    start = _size(partial)
    request = urllib.request.Request(url, headers={'Range': f'bytes={start}-'} if start else {})
    try:
        response = _open(request, patience)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        # Either the file is complete, or the part is of another file.
        if error.headers.get('Content-Range') == f'bytes */{start}':
            return True
        partial.unlink()
        return False
    with response:
        if url.startswith('https://') and not response.geturl().startswith('https://'):
            raise CheckpointError(f'{name}: {url} leads to {response.geturl()}, not encrypted')
        # A server without ranges sends all of it again.
        start = start if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        total = start + int(response.headers.get('Content-Length') or 0)
        _receive(response, partial, name, start, total)
    return _size(partial) >= total


def _open(request: urllib.request.Request, patience: float | None) -> Any:
    """Return the response of a server; with `patience` surely after so many seconds."""
    if patience is None:
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            # Later than the one below, which then is what a person is told.
            answers.put(urllib.request.urlopen(request, timeout=patience + 1))
        except Exception as error:
            answers.put(error)

    # A name server that is silent, and each of several redirections, are waited for beyond
    # urlopen's timeout: hence the thread, which nobody joins.
    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=patience)
    except queue.Empty:
        raise TimeoutError(f'no answer within {patience:g} s') from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _receive(
    response: http.client.HTTPResponse, partial: Path, name: str, start: int, total: int
) -> None:
    # Late: only a download needs it.
    from tqdm import tqdm  # type: ignore[import-untyped]

    too_large = f'{name}: {response.geturl()} has more than {MAX_BYTES >> 30} GB'
    if total > MAX_BYTES:
        raise CheckpointError(too_large)
    bar = tqdm(total=total or None, initial=start, unit='B', unit_scale=True, desc=name)
    with bar, partial.open('r+b' if start else 'wb') as file:
        file.seek(start)
        file.truncate()
        while block := response.read(_BLOCK_BYTES):
            file.write(block)
            file.flush()
            if file.tell() > MAX_BYTES:
                raise CheckpointError(too_large)
            bar.update(len(block))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_local(error: Exception) -> bool:
    """Whether an error is of our disk, not of the connection."""
    return isinstance(error, (PermissionError, FileNotFoundError, IsADirectoryError))


def _is_unreachable(error: Exception) -> bool:
    """Whether there is no point in trying again: no name, no route, refused."""
    reason = getattr(error, 'reason', None)
    return isinstance(reason, OSError) and not isinstance(reason, TimeoutError)
