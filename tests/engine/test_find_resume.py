"""Which checkpoint a run resumes from: the newest whole one of its own."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from effdet_plugin.engine.resume import (
    check_resumable,
    find_resume,
)
from effdet_plugin.errors import CheckpointError

STATE: dict[str, Any] = {'meta': {}, 'state_dict': {}, 'optimizer': {}, 'message_hub': {}}


def make_checkpoint(path: Path, time: float) -> None:
    torch.save(STATE, path)
    os.utime(path, (time, time))


def make_run(folder: Path, files: dict[str, float], last: str, written: float) -> None:
    for name, time in files.items():
        make_checkpoint(folder / name, time)
    (folder / 'last_checkpoint').write_text(str(folder / last))
    os.utime(folder / 'last_checkpoint', (written, written))


@pytest.mark.parametrize(
    ('files', 'last', 'written', 'expected'),
    [
        # An earlier, longer run has left its files.
        ({'epoch_11.pth': 10, 'epoch_12.pth': 11, 'epoch_3.pth': 20}, 'epoch_3.pth', 21, 'epoch_3'),
        # Stopped between the file and last_checkpoint.
        ({'epoch_9.pth': 20, 'epoch_10.pth': 25}, 'epoch_9.pth', 21, 'epoch_10'),
        # The file that last_checkpoint names is missing.
        ({'epoch_9.pth': 20, 'epoch_8.pth': 19}, 'epoch_10.pth', 26, 'epoch_9'),
        # Copied: all times are new, and in any order.
        ({'epoch_9.pth': 20, 'epoch_10.pth': 19}, 'epoch_10.pth', 18, 'epoch_10'),
        ({'iter_500.pth': 20, 'iter_1000.pth': 30}, 'iter_1000.pth', 31, 'iter_1000'),
    ],
)
def test_find__the_newest_of_this_run(
    tmp_path: Path, files: dict[str, float], last: str, written: float, expected: str
) -> None:
    make_run(tmp_path, files, last, written)
    found = find_resume(tmp_path)
    assert found is not None
    assert found.stem == expected


def test_find__a_moved_run_and_one_that_writes_elsewhere(tmp_path: Path) -> None:
    make_run(tmp_path, {'epoch_1.pth': 1, 'epoch_2.pth': 2}, 'epoch_2.pth', 3)
    moved = tmp_path / 'moved'
    shutil.copytree(tmp_path, moved, ignore=lambda *_: ['moved'])
    make_checkpoint(tmp_path / 'epoch_3.pth', 10)  # where the copied last_checkpoint points to
    assert find_resume(moved) == moved / 'epoch_2.pth'
    apart = tmp_path / 'apart'
    apart.mkdir()
    shutil.copy2(tmp_path / 'last_checkpoint', apart)
    assert find_resume(apart) == tmp_path / 'epoch_3.pth'


def test_find__without_last_checkpoint_and_without_anything(tmp_path: Path) -> None:
    assert find_resume(tmp_path) is None
    assert find_resume(tmp_path / 'missing') is None
    make_checkpoint(tmp_path / 'epoch_9.pth', 2)
    make_checkpoint(tmp_path / 'epoch_10.pth', 1)
    torch.save({'state_dict': {}}, tmp_path / 'epoch_11.pth')  # published: no state to resume from
    assert find_resume(tmp_path) == tmp_path / 'epoch_10.pth'


@pytest.mark.parametrize(
    'content',
    [b'', b' \n', b'\xff\xfe\x00', b'a\x00.pth', b'/etc/passwd', b'..', b'x' * 5000 + b'.pth',
     b'x' * 300 + b'.pth', b'.pth', b'epoch_.pth', b'/no/epoch_99.pth', b'a\nb.pth'],
)  # fmt: skip
def test_find__a_pointer_of_no_use_hides_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    for number in (1, 2, 10):
        make_checkpoint(tmp_path / f'epoch_{number}.pth', number)
    (tmp_path / 'last_checkpoint').write_bytes(content)
    assert find_resume(tmp_path) == tmp_path / 'epoch_10.pth'
    for name in ('epoch_10.pth', 'epoch_2.pth'):
        (tmp_path / name).write_bytes(b'')
    assert find_resume(tmp_path) == tmp_path / 'epoch_1.pth'


def test_find__a_pointer_to_another_run_or_a_folder(tmp_path: Path) -> None:
    own, other = tmp_path / 'own', tmp_path / 'other'
    for folder in (own, other):
        folder.mkdir()
        for number in (1, 2, 3):
            make_checkpoint(folder / f'epoch_{number}.pth', number)
    (own / 'last_checkpoint').write_text(str(other / 'epoch_1.pth'))
    assert find_resume(own) == own / 'epoch_3.pth'
    (own / 'last_checkpoint').unlink()
    (own / 'last_checkpoint').mkdir()
    assert find_resume(own) == own / 'epoch_3.pth'


def test_find__the_named_one_is_damaged_and_only_higher_ones_are_left(tmp_path: Path) -> None:
    make_run(tmp_path, {'epoch_3.pth': 20, 'epoch_9.pth': 5}, 'epoch_3.pth', 21)
    (tmp_path / 'epoch_3.pth').write_bytes(b'')
    assert find_resume(tmp_path) == tmp_path / 'epoch_9.pth'


def test_find__another_filename_template(tmp_path: Path) -> None:
    make_run(tmp_path, {'step-5.pth': 20}, 'step-5.pth', 21)
    assert find_resume(tmp_path) == tmp_path / 'step-5.pth'


def test_find__weights_that_are_not_finite_are_passed_over(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / 'epoch_1.pth', 1)
    torch.save({**STATE, 'state_dict': {'a': torch.tensor(torch.nan)}}, tmp_path / 'epoch_2.pth')
    assert find_resume(tmp_path) == tmp_path / 'epoch_1.pth'
    with pytest.raises(CheckpointError, match=r'epoch_2\.pth: the weights are not finite: a '):
        check_resumable(tmp_path / 'epoch_2.pth')
