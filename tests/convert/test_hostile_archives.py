"""Arrays and archives that claim what they do not hold, or reach outside."""

import io
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from effdet_plugin.convert import read_tensors
from effdet_plugin.errors import CheckpointError


@pytest.mark.parametrize('dtype', [object, 'U3', 'datetime64[s]', 'complex64'])
def test_npz__other_than_numbers(tmp_path: Path, dtype: str) -> None:
    np.savez(tmp_path / 'x.npz', a=np.zeros(2, dtype))
    with pytest.raises(CheckpointError, match=r'x\.npz: a\.npy .*numbers'):
        read_tensors(tmp_path / 'x.npz')


def test_npz__huge_claims_are_not_allocated(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {'descr': '<f4', 'fortran_order': False, 'shape': (1 << 40,)}
    )
    with zipfile.ZipFile(tmp_path / 'x.npz', 'w') as file:
        file.writestr('a.npy', header.getvalue())
    with pytest.raises(CheckpointError, match=r'x\.npz: a\.npy is cut off'):
        read_tensors(tmp_path / 'x.npz')


def test_archive__cannot_reach_outside(tmp_path: Path) -> None:
    for number, name in enumerate(['../model.index', '/tmp/model.index', 'a/../../model.index']):
        path = tmp_path / f'{number}.tar.gz'
        with tarfile.open(path, 'w:gz') as archive:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        with pytest.raises(CheckpointError, match=rf'{number}\.tar\.gz: .*{re.escape(name)}'):
            read_tensors(path)
    assert not (tmp_path.parent / 'model.index').exists()


def test_archive__links_are_not_followed(tmp_path: Path) -> None:
    link = tarfile.TarInfo('d0/model.index')
    link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
    with tarfile.open(tmp_path / 'x.tar.gz', 'w:gz') as archive:
        archive.addfile(link)
    with pytest.raises(CheckpointError, match=r'x\.tar\.gz: .*no checkpoint .*\.index'):
        read_tensors(tmp_path / 'x.tar.gz')
