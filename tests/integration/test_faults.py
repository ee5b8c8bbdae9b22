"""A training that was stopped, whenever and by whatever, goes on as if nothing had happened."""

import shutil
from pathlib import Path

import pytest
from command_lines import Tools
from tiny_project import (
    EPOCHS,
    STEPS,
    Project,
    curve,
    load,
    must_be_whole,
    must_end_equally,
    must_equal,
    rows,
)


def resume(
    tools: Tools, project: Project, work_dir: Path, whole_run: Path, first: int, *options: str
) -> str:
    """Resume; the steps from ``first`` on are done, with the losses of a run without a stop.

    Returns:
        What it printed.
    """
    before = len(rows(work_dir))
    result = tools.train(project.config, work_dir, '--resume', *options).must_succeed()
    must_equal(curve(rows(work_dir)[before:]), curve(rows(whole_run)), first)
    must_end_equally(work_dir, whole_run)
    must_be_whole(work_dir)
    return result.text


def test_run__logs_each_step_and_its_files_have_the_usual_mode(whole_run: Path) -> None:
    assert sorted(curve(rows(whole_run))) == list(range(1, EPOCHS * STEPS + 1))
    files = [path for path in whole_run.rglob('*') if path.is_file()]
    modes = {path: f'{path.stat().st_mode & 0o777:o}' for path in files}
    assert set(modes.values()) == {'640'}, modes  # it ran with a umask of 027


@pytest.mark.parametrize(
    ('fault', 'codes', 'first'),
    [
        ('SIGKILL@3', {-9}, 1),  # before there is any checkpoint
        ('SIGKILL@11', {-9}, 9),
        ('write@8', {-25}, 5),  # epoch 2's is half-written
        ('SIGTERM@11', {-15, 143}, 12),  # with a checkpoint of that step
        ('SIGINT@11', {130}, 12),
    ],
)
def test_stopped__goes_on(
    tools: Tools,
    project: Project,
    whole_run: Path,
    tmp_path: Path,
    fault: str,
    codes: set[int],
    first: int,
) -> None:
    work_dir = tmp_path / 'work'
    stopped = tools.start_training(project.config, work_dir, fault=fault)
    result = stopped.wait()
    assert result.code in codes, result
    assert 'Traceback' not in result.text, result
    assert len(result.err.splitlines()) <= 1, result
    stopped.must_leave_nobody()
    if first > 1:
        must_be_whole(work_dir)
    resume(tools, project, work_dir, whole_run, first)
    assert not list(work_dir.glob('.*.pth')), 'what was half-written stays'


def test_killed_worker__is_one_line(
    tools: Tools, project: Project, whole_run: Path, tmp_path: Path
) -> None:
    work_dir = tmp_path / 'work'
    stopped = tools.start_training(project.config, work_dir, fault='worker@14')
    stopped.wait().must_be_refused('worker')
    stopped.must_leave_nobody()
    resume(tools, project, work_dir, whole_run, 13)


def cut(path: Path) -> None:
    with path.open('r+b') as file:
        file.truncate(path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b'')


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path) -> None:
    """One bit of a tensor, in the middle of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize('damage', [cut, empty, zero, flip], ids=lambda damage: damage.__name__)
def test_newest_checkpoint_damaged__the_one_before_is_taken(
    tools: Tools, project: Project, whole_run: Path, killed_copy: Path, damage
) -> None:
    damage(killed_copy / 'epoch_3.pth')
    text = resume(tools, project, killed_copy, whole_run, 9)
    lines = [line for line in text.splitlines() if 'Skipping' in line and 'epoch_3' in line]
    assert len(lines) == 1, text


def test_resume_from_a_damaged_checkpoint_by_name__is_refused(
    tools: Tools, project: Project, killed_copy: Path
) -> None:
    path = killed_copy / 'epoch_3.pth'
    before = path.read_bytes()
    for damage in (cut, flip):
        damage(path)
        result = tools.train(project.config, killed_copy, '--resume', path)
        result.must_be_refused('epoch_3.pth', 'damaged')
        path.write_bytes(before)


@pytest.mark.parametrize(
    'content',
    [b'', b'\xff\xfe\x00\x80', b'a\x00b', b'/etc/passwd', b'..', b'x' * 5000],
    ids=['empty', 'not UTF-8', 'NUL', 'system file', 'folder', 'long'],
)
def test_pointer_of_no_use__the_newest_checkpoint_is_found(
    tools: Tools, project: Project, whole_run: Path, killed_copy: Path, content: bytes
) -> None:
    (killed_copy / 'last_checkpoint').write_bytes(content)
    resume(tools, project, killed_copy, whole_run, 13)


def test_pointer_absent_or_a_folder__the_newest_checkpoint_is_found(
    tools: Tools, project: Project, whole_run: Path, killed_copy: Path, tmp_path: Path
) -> None:
    other = tmp_path / 'other'
    shutil.copytree(killed_copy, other)
    (killed_copy / 'last_checkpoint').unlink()
    resume(tools, project, killed_copy, whole_run, 13)
    (other / 'last_checkpoint').unlink()
    (other / 'last_checkpoint').mkdir()
    before = len(rows(other))
    result = tools.train(project.config, other, '--resume')
    if result.code == 2:  # a folder cannot be replaced by a file: to say so is right, too
        result.must_be_refused('last_checkpoint')
    else:
        result.must_succeed()
        must_equal(curve(rows(other)[before:]), curve(rows(whole_run)), 13)


def test_pointer_to_another_run__the_work_dirs_own_checkpoint_is_taken(
    tools: Tools, project: Project, whole_run: Path, killed_copy: Path
) -> None:
    """As after a copy of a work dir; the other run is further on, or its file has another name."""
    (killed_copy / 'last_checkpoint').write_text(str(whole_run / 'epoch_4.pth'))
    resume(tools, project, killed_copy, whole_run, 13)


def test_nan_gradient_in_the_last_step__is_never_written(
    tools: Tools, project: Project, whole_run: Path, killed_copy: Path
) -> None:
    result = tools.train(project.config, killed_copy, '--resume', fault='nan@16')
    names = load(killed_copy / 'epoch_3.pth')['state_dict']
    line = result.must_be_refused()
    assert any(name in line for name in names), line
    must_be_whole(killed_copy)
    assert not (killed_copy / f'epoch_{EPOCHS}.pth').exists()
    resume(tools, project, killed_copy, whole_run, 13)
