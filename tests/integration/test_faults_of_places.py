"""Work dirs that are full, read-only or in use, and trainings of several processes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_lines import Started, Tools
from tiny_project import EPOCHS, Project, curve, must_be_whole, must_equal, rows

IMPORTS = 250.0  # seconds that two processes may take to start on a busy machine
Disk = Callable[[str], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Gives a file system of the size that is asked for, or changes its size."""
    place = tmp_path / 'disk'
    place.mkdir()

    def mount(size: str) -> Path:
        options = f'{"remount," if place.is_mount() else ""}size={size}'
        command = ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(place)]
        if shutil.which('mount') is None:
            pytest.skip('there is no mount here')
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f'no small disk can be mounted here: {done.stderr.strip()}')
        return place

    yield mount
    if place.is_mount():
        subprocess.run(['umount', '--lazy', str(place)], check=True)


def test_full_disk__is_one_line_and_goes_on_when_there_is_room(
    tools: Tools, project: Project, whole_run: Path, disk: Disk
) -> None:
    size = (whole_run / 'epoch_4.pth').stat().st_size
    work_dir = disk(f'{int(3.5 * size) // 1024}k') / 'work'  # the best one, epochs 1 and 2
    result = tools.train(project.config, work_dir)
    result.must_be_refused('space', str(work_dir))
    must_be_whole(work_dir)
    last = max(int(path.stem.partition('_')[2]) for path in work_dir.glob('epoch_*.pth'))
    assert 1 <= last < EPOCHS
    disk(f'{20 * size // 1024}k')
    before = len(rows(work_dir))
    tools.train(project.config, work_dir, '--resume').must_succeed()
    must_equal(curve(rows(work_dir)[before:]), curve(rows(whole_run)), 4 * last + 1)
    must_be_whole(work_dir)


def test_full_disk_at_the_start__is_one_line(tools: Tools, project: Project, disk: Disk) -> None:
    work_dir = disk('16k') / 'work'
    tools.train(project.config, work_dir).must_be_refused('space', str(work_dir))


def test_read_only_work_dir__is_one_line(tools: Tools, project: Project, tmp_path: Path) -> None:
    parent = tmp_path / 'parent'
    parent.mkdir()
    parent.chmod(0o555)
    for work_dir in (parent, parent / 'work'):
        result = tools.train(project.config, work_dir, powerless=True)
        result.must_be_refused(str(parent))
        assert re.search('permission|read-only|writ', result.err, re.I), result
    assert not list(parent.iterdir())


def test_read_only_run__resume_is_one_line(
    tools: Tools, project: Project, killed_copy: Path
) -> None:
    killed_copy.chmod(0o555)
    before = sorted(killed_copy.rglob('*'))
    result = tools.train(project.config, killed_copy, '--resume', powerless=True)
    killed_copy.chmod(0o755)
    result.must_be_refused(str(killed_copy))
    assert sorted(killed_copy.rglob('*')) == before


def test_file_in_the_way__is_one_line(tools: Tools, project: Project, tmp_path: Path) -> None:
    file = tmp_path / 'file'
    file.write_text('mine')
    for work_dir in (file, file / 'work'):
        tools.train(project.config, work_dir).must_be_refused(str(file))
    assert file.read_text() == 'mine'


def test_two_starts_together__one_trains(
    tools: Tools, project: Project, whole_run: Path, tmp_path: Path
) -> None:
    work_dir = tmp_path / 'work'
    both = [tools.start_training(project.config, work_dir) for _ in range(2)]
    first, second = sorted((started.wait() for started in both), key=lambda result: result.code)
    first.must_succeed()
    second.must_be_refused(str(work_dir))
    assert len(rows(work_dir)) == len(rows(whole_run))
    must_equal(curve(rows(work_dir)), curve(rows(whole_run)), 1)


def test_start_beside_a_live_run__is_refused_and_the_run_goes_on(
    tools: Tools, project: Project, whole_run: Path, tmp_path: Path
) -> None:
    work_dir, paused = tmp_path / 'work', tmp_path / 'paused'
    live = tools.start_training(project.config, work_dir, fault='pause@7', FAULT_FILE=str(paused))
    live.wait_for(paused)
    files = sorted(work_dir.rglob('*'))
    others = {}
    for option in ('--resume', '--overwrite', ''):
        others[option] = tools.train(project.config, work_dir, *filter(None, [option]))
        assert live.poll() is None
    left = sorted(work_dir.rglob('*'))
    paused.unlink()
    live.wait().must_succeed()
    for result in others.values():
        result.must_be_refused(str(work_dir))
    assert [path for path in left if 'lock' not in path.name] == [
        path for path in files if 'lock' not in path.name
    ]
    must_equal(curve(rows(work_dir)), curve(rows(whole_run)), 1)
    must_be_whole(work_dir)


def start_two(tools: Tools, project: Project, work_dir: Path, *options: str, **env: str) -> Started:
    """A training in two processes, with a checkpoint every second of its epochs of two steps."""
    arguments = ['--work-dir', work_dir, *options, '--cfg-options', 'train_cfg.max_epochs=40']
    arguments += ['default_hooks.checkpoint.interval=2', 'train_cfg.val_interval=40']
    return tools.start('dist_train.sh', project.config, 2, *arguments, PYTHON=sys.executable, **env)


@pytest.mark.dist
@pytest.mark.timeout(600)
def test_torchrun_is_killed_while_its_processes_import__nobody_is_left(
    tools: Tools, project: Project, tmp_path: Path
) -> None:
    started = start_two(tools, project, tmp_path / 'work')
    deadline = time.monotonic() + IMPORTS
    while len(started.family()) < 3:  # torchrun and its two
        assert time.monotonic() < deadline
        assert started.poll() is None, started.wait()
    os.kill(started.pid, signal.SIGKILL)
    started.must_leave_nobody(30)
    assert not list(tmp_path.rglob('*.pth'))


@pytest.mark.dist
@pytest.mark.timeout(600)
def test_two_processes__one_is_killed_then_torchrun(
    tools: Tools, project: Project, tmp_path: Path
) -> None:
    """Neither leaves anybody behind, and the run resumes from its last checkpoint."""
    work_dir = tmp_path / 'work'
    started = start_two(tools, project, work_dir, FAULT='SIGKILL@8@1')
    result = started.wait(IMPORTS)
    started.must_leave_nobody()
    must_be_whole(work_dir)
    first = rows(work_dir)

    slow = tmp_path / 'slow'
    started = start_two(
        tools, project, work_dir, '--resume', FAULT='slow@8@0', FAULT_FILE=str(slow)
    )
    started.wait_for(slow, IMPORTS)
    processes = started.family()
    assert len(processes) >= 3
    os.kill(started.pid, signal.SIGKILL)  # bash has become torchrun
    started.must_leave_nobody()
    must_be_whole(work_dir)
    assert not (work_dir / 'epoch_40.pth').exists()

    found = curve([row for row in rows(work_dir)[len(first) :] if row['step'] < 8])
    must_equal(found, curve(first), 5, last=7)
    # The message of the first one last: it is about the words only.
    assert result.code != 0
    assert 'Traceback' not in result.text, result
    lines = [line for line in result.err.splitlines() if 'error: ' in line]
    assert len(lines) == 1, result
    assert len(result.err.splitlines()) <= 10, result
