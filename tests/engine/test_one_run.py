"""The lock of a work dir, and processes that end with their parent."""

import os
import select
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from toy import toy_config, train

from effdet_plugin.engine.one_run import LOCK, end_with_parent, only_run
from effdet_plugin.errors import UserError, WriteError


class Holder:
    """A process that calls a function, then waits to be killed; ``left`` tells whether it lives.

    Pipes, not events of multiprocessing: those wait for a killed process.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        ready, write_ready = os.pipe()
        self.left, write_left = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                function()
                os.write(write_ready, b'.')
                signal.pause()
            finally:
                os._exit(1)
        os.close(write_ready)
        os.close(write_left)
        assert os.read(ready, 1) == b'.'
        os.close(ready)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def all_have_ended(self, seconds: float) -> bool:
        """Whether it and its children end: the pipe ends with the last of them."""
        return bool(select.select([self.left], [], [], seconds)[0])


def enter(work_dir: Path) -> None:
    only_run(work_dir).__enter__()


def hold_with_child(work_dir: Path) -> None:
    """As a training with a loader worker, which outlives it for some seconds."""
    context = only_run(work_dir)
    context.__enter__()
    if os.fork() == 0:
        signal.alarm(5)
        signal.pause()
    keep.append(context)


keep: list[object] = []


def test_lock__one_process_and_it_ends_with_that_process(tmp_path: Path) -> None:
    work_dir = tmp_path / 'work'
    holder = Holder(lambda: hold_with_child(work_dir))
    with pytest.raises(UserError, match=rf'{work_dir}.*process {holder.pid} on .*--work-dir'):
        enter(work_dir)
    with pytest.raises(UserError, match='a run is in progress'):
        train(toy_config(work_dir))
    assert not (work_dir / 'config.json').exists()
    with only_run(tmp_path / 'other'):
        holder.kill()
    assert not holder.all_have_ended(0)
    with only_run(work_dir):
        pass


def test_lock__twice_in_one_process_and_after_it(tmp_path: Path) -> None:
    def is_free() -> bool:
        pid = os.fork()
        if pid == 0:
            try:
                enter(tmp_path)
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitpid(pid, 0)[1] == 0

    mask = os.umask(0o027)
    with only_run(tmp_path):
        with only_run(tmp_path / '.'):
            pass
        assert not is_free()
    os.umask(mask)
    assert is_free()
    assert f'{(tmp_path / LOCK).stat().st_mode & 0o777:o}' == '640'


def test_lock__a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    for place in (tmp_path / 'file', tmp_path / 'file' / 'work'):
        with pytest.raises(WriteError, match=rf'{place}: cannot be .*file is in the way'):
            enter(place)


def test_end_with_parent__a_killed_parent(tmp_path: Path) -> None:
    def start_child() -> None:
        ready, write_ready = os.pipe()
        if os.fork() == 0:
            end_with_parent()
            os.write(write_ready, b'.')
            signal.alarm(30)
            signal.pause()
        os.read(ready, 1)

    holder = Holder(start_child)
    assert not holder.all_have_ended(0)
    holder.kill()
    assert holder.all_have_ended(5)
