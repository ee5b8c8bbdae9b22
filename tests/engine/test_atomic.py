"""Files appear whole or not at all."""

import os
import stat
from pathlib import Path

import pytest
from mmengine.fileio import get_file_backend

from effdet_plugin.engine.atomic import remove_parts, replacing


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
