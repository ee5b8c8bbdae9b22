"""Mutants of whole checkpoints through the converter: read, or refused in a line."""

import os
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mutants import mutant_bytes, mutants_of
from reference_variables import variables
from tf_writer import write_bundle

from effdet_plugin.convert import convert
from effdet_plugin.convert.networks import Structure, state_shapes
from effdet_plugin.errors import UserError

COUNT = int(os.environ.get('EFFDET_FUZZ', '4'))


def must_be_read_or_refused(path: Path) -> None:
    """No error but a user's, of one short line."""
    line = ''
    try:
        convert(path)
    except UserError as error:
        line = str(error)
    assert '\n' not in line
    assert len(line) < 1000


def ours() -> dict[str, Any]:
    """A checkpoint of ours of a whole network, all zero."""
    shapes = state_shapes(Structure('lite0'))
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    return {'meta': {'dataset_meta': {'classes': ['a', 'b']}}, 'state_dict': state}


@pytest.mark.parametrize('kind', ['pth', 'legacy pth', 'npz', 'bundle'])
def test_mutants(tmp_path: Path, kind: str) -> None:
    chance = random.Random(5)
    content = ours()
    arrays = {name: np.zeros(shape, 'f4') for name, shape in variables('d0').items()}
    for number in range(COUNT):
        path = tmp_path / f'{number}.{kind.rpartition(" ")[2]}'
        if kind.endswith('pth'):
            is_zip = kind == 'pth'
            torch.save(mutants_of(content, chance), path, _use_new_zipfile_serialization=is_zip)
        elif kind == 'npz':
            mutant = mutants_of(arrays, chance)
            np.savez(path, **{str(k).replace('/', '|'): np.asarray(v) for k, v in mutant.items()})
        else:
            tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
            write_bundle(path / 'model', tensors)
            index = path / 'model.index'
            index.write_bytes(mutant_bytes(index.read_bytes(), chance))
        must_be_read_or_refused(path)


@pytest.mark.parametrize('part', ['data.pkl', ''])
def test_mutants__of_bytes(tmp_path: Path, part: str) -> None:
    """Of the pickle in a file, and of the file."""
    chance = random.Random(6)
    torch.save(ours(), tmp_path / 'whole.pth')
    whole = (tmp_path / 'whole.pth').read_bytes()
    with zipfile.ZipFile(tmp_path / 'whole.pth') as file:
        members = {name: file.read(name) for name in file.namelist()}
    for number in range(COUNT):
        path = tmp_path / f'{number}.pth'
        if part:
            with zipfile.ZipFile(path, 'w') as file:
                for name, data in members.items():
                    is_it = name.endswith(part)
                    file.writestr(name, mutant_bytes(data, chance) if is_it else data)
        else:
            path.write_bytes(mutant_bytes(whole, chance))
        must_be_read_or_refused(path)
        path.unlink()
