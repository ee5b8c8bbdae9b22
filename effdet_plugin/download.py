"""Downloads: once, resumed after a break, of bounded size, with their hash kept and compared."""

import hashlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import torch

from effdet_plugin.errors import CheckpointError, escaped
from effdet_plugin.files import sha256

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


def fetch(url: str, folder: Path, name: str) -> Path:
    """Return the path of a file in ``folder``, downloaded unless it is there.

    A file is kept under its full address, with its sha256 beside it. Where that no longer fits the
    file is downloaded again; where the address tells a hash, another content is refused.

    Args:
        url: its address: https, or http with a warning.
        folder: of downloads.
        name: what to call it in messages.

    Raises:
        CheckpointError: No network, no such file, more than :data:`MAX_BYTES`, another hash than
            the address tells, or the connection breaks again and again.
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
                _fetch(url, target, name)
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


def _fetch(url: str, target: Path, name: str) -> None:
    if not url.startswith('https://'):
        print(
            f'warning: {escaped(url)} is not encrypted: anybody on the way can change it',
            file=sys.stderr,
        )
    partial = target.with_name(target.name + '.part')
    _download(url, partial, name)
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


def _download(url: str, partial: Path, name: str) -> None:
    failures = 0
    while True:
        before = _size(partial)
        try:
            if _continue(url, partial, name):
                return
            error: Exception = ConnectionError('the connection ended early')
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException) as broken:
            if _is_local(broken):
                raise
            error = broken
        failures = 0 if _size(partial) > before else failures + 1
        if failures >= ATTEMPTS or _is_unreachable(error):
            raise error
        time.sleep(min(2**failures - 1, 10) / 4)


def _continue(url: str, partial: Path, name: str) -> bool:
    """Download the rest of a file; return whether it is complete now."""
    start = _size(partial)
    request = urllib.request.Request(url, headers={'Range': f'bytes={start}-'} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
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
