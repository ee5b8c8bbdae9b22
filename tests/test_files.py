"""Files are written atomically, and loading never runs anything and says what is wrong."""

import errno
import os
import pickle
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.fileio import get_file_backend

from effdet_plugin.errors import CheckpointError, WriteError
from effdet_plugin.files import remove_parts, replacing, write_atomically
from effdet_plugin.weights_only import is_finite, load_weights_only


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), 'w')


def test_load__a_checkpoint(tmp_path: Path) -> None:
    torch.save({'state_dict': {'a': torch.ones(2)}, 'meta': {'epoch': 3}}, tmp_path / 'x.pth')
    assert load_weights_only(tmp_path / 'x.pth')['meta'] == {'epoch': 3}
    torch.save({'a': 1}, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    assert load_weights_only(str(tmp_path / 'old.pth')) == {'a': 1}


@pytest.mark.parametrize('zipped', [True, False])
def test_load__code_in_a_checkpoint_is_not_run(tmp_path: Path, zipped: bool) -> None:
    victim = tmp_path / 'written'
    content = {'state_dict': {'a': torch.ones(2)}, 'evil': Evil(victim)}
    torch.save(content, tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r'x\.pth: needs unpickling of \S*open\b'):
        load_weights_only(tmp_path / 'x.pth')
    assert not victim.exists()
    torch.load(tmp_path / 'x.pth', weights_only=False)['evil'].close()
    assert victim.exists()  # so the file would have


def test_load__what_is_no_checkpoint(tmp_path: Path) -> None:
    whole = tmp_path / 'whole.pth'
    torch.save({'a': torch.ones(1000)}, whole)
    contents = {
        'empty': b'',
        'text': b'hello, this is no checkpoint\n' * 50,
        'half': whole.read_bytes()[: whole.stat().st_size // 2],
        'head': whole.read_bytes()[:10],
        'pickle': pickle.dumps({'a': 1}),
        'zeros': bytes(4096),
    }
    for name, content in contents.items():
        path = tmp_path / f'{name}.pth'
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=f'{name}.pth: damaged, or not') as info:
            load_weights_only(path)
        assert '\n' not in str(info.value)


def test_load__missing_folder_and_other_content(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match='no such checkpoint'):
        load_weights_only(tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match='no such checkpoint'):
        load_weights_only(tmp_path)
    torch.save(torch.ones(2), tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match='holds a Tensor'):
        load_weights_only(tmp_path / 'x.pth')


def test_replacing__the_old_content_stays_until_the_end(tmp_path: Path) -> None:
    file = tmp_path / 'a.json'
    file.write_text('old')
    with replacing(file) as part:
        assert part.suffix == '.json'
        part.write_text('new')
        assert file.read_text() == 'old'
    assert file.read_text() == 'new'
    assert os.listdir(tmp_path) == ['a.json']


def test_replacing__an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / 'a.txt'
    file.write_text('old')

    def fail() -> None:
        with replacing(file) as part:
            part.write_text('half')
            raise RuntimeError('stop')

    with pytest.raises(RuntimeError, match='stop'):
        fail()
    assert file.read_text() == 'old'
    assert os.listdir(tmp_path) == ['a.txt']


def test_replacing__folders_and_ordinary_permissions(tmp_path: Path) -> None:
    with replacing(tmp_path / 'new' / 'folder' / 'a.txt') as part:
        part.write_text('x')
    (tmp_path / 'ordinary').write_text('x')
    modes = [
        stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ('new/folder/a.txt', 'ordinary')
    ]
    assert modes[0] == modes[1]


def test_remove_parts__only_those(tmp_path: Path) -> None:
    (tmp_path / '.epoch_3.part-x1y2.pth').write_bytes(b'half')
    (tmp_path / 'epoch_2.pth').write_bytes(b'whole')
    (tmp_path / '.hidden').write_bytes(b'')
    assert [path.name for path in remove_parts(tmp_path)] == ['.epoch_3.part-x1y2.pth']
    assert {path.name for path in tmp_path.iterdir()} == {'epoch_2.pth', '.hidden'}


def test_backend__mmengine_writes_through_it(tmp_path: Path) -> None:
    backend = get_file_backend(backend_args={'backend': 'atomic'})
    backend.put(b'abc', str(tmp_path / 'x' / 'a.pth'))
    backend.put_text('déf', tmp_path / 'a.txt')
    assert (tmp_path / 'x' / 'a.pth').read_bytes() == b'abc'
    assert (tmp_path / 'a.txt').read_text(encoding='utf-8') == 'déf'


BAD = [float('nan'), float('inf'), -float('inf')]


@pytest.mark.parametrize('value', BAD)
@pytest.mark.parametrize('kind', [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_not_finite__is_refused_by_name(tmp_path: Path, value: float, kind: torch.dtype) -> None:
    good = {'a': torch.ones(3, dtype=kind), 'n': torch.tensor(7), 'empty': torch.zeros(0)}
    bad = {**good, 'b.weight': torch.tensor([1, value], dtype=kind), 'c': torch.tensor(value)}
    raw = {f'module.{name}': tensor for name, tensor in bad.items()}
    path = tmp_path / 'x.pth'
    for content in (good, {'state_dict': good, 'ema_state_dict': {'steps': torch.tensor(1)}}):
        torch.save(content, path)
        assert load_weights_only(path).keys() == content.keys()
    for content in (bad, {'state_dict': bad}, {'state_dict': good, 'ema_state_dict': raw}):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=r'x\.pth: the weights are not finite: b\.weight'):
            load_weights_only(path)


def test_finite__the_largest_numbers_are(tmp_path: Path) -> None:
    for kind in (torch.float32, torch.float16, torch.float64):
        largest = torch.finfo(kind).max
        assert is_finite(torch.tensor([largest, -largest], dtype=kind))


def test_replacing__what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('mine')
    (tmp_path / 'folder').mkdir()
    cases = {tmp_path / 'file' / 'x': 'in the way', tmp_path / 'folder': 'in the way'}
    cases[tmp_path / ('x' * 300)] = 'shorter name'
    for path, words in cases.items():
        with pytest.raises(WriteError, match=words) as error:
            write_atomically(path, 'text')
        assert str(error.value).startswith(f'{path}: cannot be')
        assert '\n' not in str(error.value)
    assert {p.name for p in tmp_path.iterdir()} == {'file', 'folder'}
    assert (tmp_path / 'file').read_text() == 'mine'


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_replacing__a_refusal_while_writing(tmp_path: Path, code: int) -> None:
    (tmp_path / 'x').write_text('old')
    with pytest.raises(WriteError, match=os.strerror(code)), replacing(tmp_path / 'x'):
        raise OSError(code, os.strerror(code))
    assert [p.name for p in tmp_path.iterdir()] == ['x']
    assert (tmp_path / 'x').read_text() == 'old'
