"""What files of ``torch.save`` may hold, and how much."""

import os
import pickle
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from effdet_plugin.errors import CheckpointError
from effdet_plugin.weights_only import (
    FORCE,
    force_weights_only,
    load_weights_only,
    weights_only_loads,
)

VALUES = {
    'float64': np.float64(0.5),
    'bool': np.bool_(True),
    'str': np.str_('name'),
    'big endian': np.arange(3, dtype='>i4'),
    'fortran': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    'empty': np.zeros((0, 3)),
    'strings': np.array(['a', 'bc']),
    'in a tuple': (np.arange(4), [np.uint8(3)]),
    'dtype': np.dtype('float32'),
}


@pytest.mark.parametrize('zipped', [True, False])
def test_load__what_mmengines_own_hook_writes(tmp_path: Path, zipped: bool) -> None:
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    history.update(6.0)
    path = tmp_path / 'x.pth'
    content = {**VALUES, 'message_hub': {'log_scalars': {'loss': history}}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    loaded = load_weights_only(path)
    buffer = loaded.pop('message_hub')['log_scalars']['loss']
    assert type(buffer) is HistoryBuffer
    assert (buffer.mean(), buffer.max(), buffer.current()) == (3.0, 6.0, 6.0)
    for name, value in VALUES.items():
        assert repr(loaded[name]) == repr(value), name


class Call:
    """Calls something when it is unpickled, or sets a state."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


@pytest.mark.parametrize(
    'value',
    [
        np.array([object], dtype=object),
        Call(getattr, (1, 'real')),
        Call(bytes, (1 << 40,)),
        Call(np.dtype, ('O', False, True)),
        Call(np.dtype, ('f8', False, True), (3, '|', None, None, None, -1, -1, 63)),
        Call(np.ndarray, ((1 << 40,),)),
    ],
)
def test_load__numpy_and_builtins_are_never_called(tmp_path: Path, value: Any) -> None:
    torch.save({'value': value}, tmp_path / 'x.pth')
    try:
        found = load_weights_only(tmp_path / 'x.pth')['value']
    except CheckpointError:
        return
    assert found is None or found == np.dtype('f8')


def deep() -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(300):
        value = {'a': value}
    return value


def cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value['a'] = value
    return value


def repeated() -> dict[str, Any]:
    value: list[Any] = [1]
    for _ in range(30):
        value = [value] * 10
    return {'a': value}


@pytest.mark.parametrize(
    ('content', 'line'),
    [
        ({'a': torch.ones(1).expand(10**6, 10**6)}, r'a \[1000000, 1000000\] has more elements'),
        ({'b': {'a': torch.ones(4).as_strided((3, 3), (1, 0))}}, 'a .* has more elements'),
        ({'a': torch.eye(3).to_sparse()}, 'a is no dense tensor'),
        ({'a': torch.ones(3, device='meta')}, 'a is no dense tensor'),
        (deep(), 'nested more than 100 deep'),
        (cyclic(), 'holds itself'),
        (repeated(), 'repeats its parts'),
    ],
)
def test_load__what_nobody_could_use(tmp_path: Path, content: dict[str, Any], line: str) -> None:
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=rf'x\.pth: .*{line}') as caught:
        load_weights_only(tmp_path / 'x.pth')
    assert '\n' not in str(caught.value)


def test_load__a_storage_of_several_tensors(tmp_path: Path) -> None:
    weight = torch.arange(6.0)
    content = {'a': weight, 'b': weight.view(2, 3), 'c': weight[2:], 'd': weight.view(2, 3).T}
    torch.save(content, tmp_path / 'x.pth')
    loaded = load_weights_only(tmp_path / 'x.pth')
    assert all(torch.equal(loaded[name], value) for name, value in content.items())


def test_load__a_compressed_file(tmp_path: Path) -> None:
    torch.save({'a': torch.zeros(1 << 20)}, tmp_path / 'x.pth')
    with (
        zipfile.ZipFile(tmp_path / 'x.pth') as stored,
        zipfile.ZipFile(tmp_path / 'small.pth', 'w', zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    with pytest.raises(CheckpointError, match=r'small\.pth: .* is compressed.*zip -0'):
        load_weights_only(tmp_path / 'small.pth')


def test_load__in_spite_of_what_others_have_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    monkeypatch.delenv(FORCE, raising=False)
    victim = tmp_path / 'victim'
    torch.save({'a': Call(os.mkdir, (str(victim),))}, tmp_path / 'x.pth')
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([os.mkdir])
    try:
        with pytest.raises(CheckpointError, match=r'needs unpickling of posix\.mkdir'):
            load_weights_only(tmp_path / 'x.pth')
        assert {*torch.serialization.get_safe_globals()} == {*before, os.mkdir}
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
    assert os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] == '1'
    assert FORCE not in os.environ


def test_force__reaches_loads_that_ask_for_pickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FORCE, '0')
    torch.save({'a': Call(os.mkdir, (str(tmp_path / 'victim'),))}, tmp_path / 'x.pth')
    with weights_only_loads(), pytest.raises(pickle.UnpicklingError, match='mkdir'):
        torch.load(tmp_path / 'x.pth', weights_only=False)
    assert os.environ[FORCE] == '0'
    force_weights_only()
    with pytest.raises(pickle.UnpicklingError, match='mkdir'):
        torch.load(tmp_path / 'x.pth', weights_only=False)
    assert not (tmp_path / 'victim').exists()


def test_force__of_two_threads_lasts_until_both_have_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FORCE, raising=False)
    victim = tmp_path / 'victim'
    torch.save({'a': Call(os.mkdir, (str(victim),))}, tmp_path / 'evil.pth')
    torch.save(VALUES, tmp_path / 'numpy.pth')
    before = torch.serialization.get_safe_globals()
    inside, left = threading.Event(), threading.Event()
    seen: list[object] = []

    def second() -> None:
        with weights_only_loads():
            inside.set()
            left.wait(60)
            with pytest.raises(pickle.UnpicklingError, match='mkdir'):
                torch.load(tmp_path / 'evil.pth', weights_only=False)
            seen.append(load_weights_only(tmp_path / 'numpy.pth').keys())

    thread = threading.Thread(target=second)
    with weights_only_loads():
        thread.start()
        assert inside.wait(60)
    left.set()
    thread.join()
    assert seen == [VALUES.keys()]
    assert not victim.exists()
    assert FORCE not in os.environ
    assert {*torch.serialization.get_safe_globals()} == {*before}


@pytest.mark.parametrize(
    'weight',
    [
        torch.tensor([1.0, 1e300], dtype=torch.float64),  # infinite in a network
        torch.tensor([complex(1, float('nan'))]),
        torch.tensor([1.0, float('inf')], dtype=torch.float16),
        torch.tensor([float('nan'), 1.0], dtype=torch.bfloat16),
        torch.tensor([float('nan')]).to(torch.float8_e4m3fn),
    ],
)
def test_load__numbers_that_no_network_computes_with(tmp_path: Path, weight: torch.Tensor) -> None:
    torch.save({'a': torch.ones(2), 'b.c': weight}, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=r'not finite: b\.c holds NaN or infinity'):
        load_weights_only(tmp_path / 'x.pth')
