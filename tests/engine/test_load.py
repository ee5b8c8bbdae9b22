"""Reading checkpoints: never runs anything, always says what is wrong."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from effdet_plugin.engine.load import load_plain
from effdet_plugin.errors import CheckpointError


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), 'w')


def test_load__a_checkpoint(tmp_path: Path) -> None:
    torch.save({'state_dict': {'a': torch.ones(2)}, 'meta': {'epoch': 3}}, tmp_path / 'x.pth')
    assert load_plain(tmp_path / 'x.pth')['meta'] == {'epoch': 3}
    torch.save({'a': 1}, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    assert load_plain(str(tmp_path / 'old.pth')) == {'a': 1}


@pytest.mark.parametrize('zipped', [True, False])
def test_load__code_in_a_checkpoint_is_not_run(tmp_path: Path, zipped: bool) -> None:
    victim = tmp_path / 'written'
    content = {'state_dict': {'a': torch.ones(2)}, 'evil': Evil(victim)}
    torch.save(content, tmp_path / 'x.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r'x\.pth: needs unpickling of \S*open\b'):
        load_plain(tmp_path / 'x.pth')
    assert not victim.exists()
    torch.load(tmp_path / 'x.pth', weights_only=False)['evil'].close()
    assert victim.exists()  # so the file would have


@pytest.mark.parametrize('value', [HistoryBuffer([1.0], [1]), np.float64(1)])
def test_load__a_checkpoint_of_mmengines_own_hook(tmp_path: Path, value: Any) -> None:
    torch.save({'state_dict': {}, 'message_hub': value}, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match='needs unpickling of') as info:
        load_plain(tmp_path / 'x.pth')
    assert '\n' not in str(info.value)


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
            load_plain(path)
        assert '\n' not in str(info.value)


def test_load__missing_folder_and_other_content(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match='no such checkpoint'):
        load_plain(tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match='no such checkpoint'):
        load_plain(tmp_path)
    torch.save(torch.ones(2), tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match='holds a Tensor'):
        load_plain(tmp_path / 'x.pth')
