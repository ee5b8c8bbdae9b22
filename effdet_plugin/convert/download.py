"""google/automl's released checkpoints by name: downloaded once, resumed after a break."""

import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

import torch

from effdet_plugin.errors import CheckpointError

# As google/automl's README, tf2/README and Det-AdvProp page give them.
BASE_URL = 'https://storage.googleapis.com/cloud-tpu-checkpoints/efficientdet/'
RELEASES = {
    **{f'd{x}': f'coco2/efficientdet-d{x}.tar.gz' for x in (*range(8), '7x')},
    **{f'd{x}-640': f'coco640/efficientdet-d{x}-640.tar.gz' for x in range(2, 7)},
    **{f'd{x}-advprop': f'advprop/efficientdet-d{x}.tar.gz' for x in range(6)},
    **{f'lite{x}': f'coco/efficientdet-lite{x}.tgz' for x in (0, 1, 2, 3, '3x', 4)},
}
ATTEMPTS = 5  # in a row without a new byte
TIMEOUT_S = 30
_BLOCK_BYTES = 1 << 18


def release_name(src: str | Path) -> str | None:
    """Return the release that ``src`` names: ``d0``, ``efficientdet-d3-640``; None for a path."""
    name = str(src).lower().removeprefix('efficientdet-')
    return name if name in RELEASES and not Path(src).exists() else None


def cache_dir(cache: str | Path | None = None) -> Path:
    """Return the folder for downloads: ``cache``, or one in torch.hub's."""
    return Path(cache) if cache is not None else Path(torch.hub.get_dir()) / 'effdet_plugin'


def fetch_release(name: str, cache: str | Path | None = None) -> Path:
    """Return the path of a release's archive, downloaded unless it is there.

    Args:
        name: a key of :data:`RELEASES`.
        cache: folder for downloads.

    Raises:
        CheckpointError: It cannot be downloaded; the line says what to do.
    """
    return fetch(BASE_URL + RELEASES[name], cache_dir(cache), name)


def fetch(url: str, folder: Path, name: str) -> Path:
    """Return the path of a file in ``folder``, downloaded unless it is there.

    Args:
        url: its address.
        folder: of downloads; a file is named after the last two parts of its address.
        name: what to call it in messages.

    Raises:
        CheckpointError: No network, no such file, or the connection breaks again and again.
    """
    target = folder / '-'.join(url.split('?')[0].split('/')[-2:])
    if target.exists():
        return target
    partial = target.with_name(target.name + '.part')
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _download(url, partial, name)
        os.replace(partial, target)
    except urllib.error.HTTPError as error:
        raise CheckpointError(f'{name}: {url} answers {error.code} {error.reason}') from error
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        ConnectionError,
        TimeoutError,
    ) as error:
        reason = getattr(error, 'reason', None) or error
        raise CheckpointError(
            f'{name}: cannot be downloaded ({reason}): check the network and try again, the '
            f'received part is kept; or download {url} elsewhere and give its path'
        ) from error
    except OSError as error:
        raise CheckpointError(f'{folder}: cannot keep downloads here: {error.strerror}') from error
    return target


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

    bar = tqdm(total=total or None, initial=start, unit='B', unit_scale=True, desc=name)
    with bar, partial.open('r+b' if start else 'wb') as file:
        file.seek(start)
        file.truncate()
        while block := response.read(_BLOCK_BYTES):
            file.write(block)
            file.flush()
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
