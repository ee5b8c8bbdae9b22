"""A run has its work dir to itself, and its processes end together."""

import ctypes
import errno
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from effdet_plugin.errors import UserError
from effdet_plugin.files import write_errors

if sys.platform != 'win32':
    import fcntl

LOCK = 'run.lock'
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # of some network file systems
_PR_SET_PDEATHSIG = 1  # of prctl (linux/prctl.h)
_held: dict[tuple[int, Path], IO[bytes]] = {}  # by process: a forked one holds nothing


@contextmanager
def only_run(work_dir: Path | str) -> Iterator[None]:
    """Hold the lock of a work dir for the time of the block, unless this process has it already.

    The lock ends with the process, however that ends; loader workers do not inherit it. Its file
    stays: to remove it would let two processes lock two files of the same name.

    Args:
        work_dir: Folder of the run; made if it is missing.

    Raises:
        UserError: Another process holds it; the line names the process.
        WriteError: The folder cannot be written.
    """
    place = Path(work_dir).resolve()
    if (os.getpid(), place) in _held or sys.platform == 'win32':
        yield
        return
    with write_errors(work_dir):
        place.mkdir(parents=True, exist_ok=True)
        file = (place / LOCK).open('a+b', buffering=0)
    try:
        _lock(file, work_dir)
        _held[os.getpid(), place] = file
        yield
    finally:
        _held.pop((os.getpid(), place), None)
        file.close()


def _lock(file: IO[bytes], work_dir: Path | str) -> None:
    """Lock a file and write this process into it."""
    try:
        # Not `flock`, whose lock a forked loader worker shares and keeps.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return
        file.seek(0)
        owner = ascii(file.read(200).decode(errors='replace').strip())[1:-1] or 'another process'
        raise UserError(
            f'{work_dir}: a run is in progress here ({owner}); wait for its end, stop it, or '
            'choose another folder (--work-dir, of an inference --out)'
        ) from None
    with write_errors(work_dir):
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}\n'.encode())


def end_with_parent() -> None:
    """End this process when the one that has started it ends, also by a kill (Linux only).

    Processes of a killed torchrun would train on, and hold the work dir and the GPUs.
    """
    if sys.platform.startswith('linux'):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
