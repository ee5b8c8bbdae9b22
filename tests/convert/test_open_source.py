"""Every format is told from its content; damaged, hostile and foreign files are one line."""

import gzip
import os
import random
import shutil
import sys
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from tf_writer import write_bundle

import support
from effdet_plugin.convert import read_tensors
from effdet_plugin.convert.key_map import KeyMap
from effdet_plugin.convert.key_map_pytorch import EFFDET, OWN
from effdet_plugin.convert.key_map_tensorflow import OBJECTS, VARIABLES
from effdet_plugin.convert.open_source import open_source
from effdet_plugin.errors import CheckpointError, InstallError

CUTS = 20


def _sample(name: str) -> Path:
    return support.oracle_file(name)


def _pack(folder: Path, target: Path, inside: str = 'efficientdet-d0') -> Path:
    with tarfile.open(target, 'w:gz' if target.suffix in ('.gz', '.tgz') else 'w') as archive:
        for path in sorted(folder.iterdir()):
            if path.name != 'expected.npz':
                archive.add(path, f'{inside}/{path.name}')
    return target


@pytest.fixture
def samples(tmp_path: Path) -> dict[str, Path]:
    """One small file of every format."""
    tf1, tf2 = _sample('tf1_small/model.index').parent, _sample('tf2_small/ckpt-7.index').parent
    arrays = {'a/b/kernel:0': np.ones((2, 3), np.float32), 'step': np.array(3, np.int64)}
    np.savez(tmp_path / 'plain.npz', **arrays)
    np.savez_compressed(tmp_path / 'compressed.npz', **arrays)
    state = {
        'fpn.cell.0.fnode.0.combine.edge_weights': torch.rand(2),
        'backbone.x': torch.rand(900),
    }
    torch.save(state, tmp_path / 'effdet.pth')
    torch.save(state, tmp_path / 'legacy.pth', _use_new_zipfile_serialization=False)
    return {
        'tf1': tf1,
        'tf2': tf2 / 'ckpt-7',
        'slots': tf2 / 'with_optimizer.index',
        'tar.gz': _pack(tf1, tmp_path / 'd0.tar.gz'),
        'tgz': _pack(tf1, tmp_path / 'd0.tgz', '.'),
        'tar': _pack(tf1, tmp_path / 'd0.tar'),
        'h5': _sample('tf2_small/weights.h5'),
        **{name: tmp_path / name for name in ('plain.npz', 'compressed.npz')},
        **{name: tmp_path / name for name in ('effdet.pth', 'legacy.pth')},
    }


def _expected(folder: str) -> dict[str, np.ndarray]:
    arrays = np.load(_sample(f'{folder}/expected.npz'))
    return {name.replace('|', '/'): arrays[name] for name in arrays.files}


@pytest.mark.parametrize(
    ('kind', 'folder'),
    [
        ('tf1', 'tf1_small'),
        ('tar.gz', 'tf1_small'),
        ('tgz', 'tf1_small'),
        ('tar', 'tf1_small'),
        ('tf2', 'tf2_small'),
        ('h5', 'tf2_small'),
    ],
)
def test_read_tensors__equal_the_expected_ones(
    samples: dict[str, Path], kind: str, folder: str
) -> None:
    if kind == 'h5':
        pytest.importorskip('h5py')
    values, expected = read_tensors(samples[kind]), _expected(folder)
    assert values.keys() == expected.keys()
    for name, value in values.items():
        value = value.float() if value.dtype == torch.bfloat16 else value
        assert value.shape == expected[name].shape
        np.testing.assert_array_equal(value.numpy(), expected[name])


def test_read_tensors__needs_no_tensorflow(samples: dict[str, Path]) -> None:
    read_tensors(samples['tar.gz'])
    assert 'tensorflow' not in sys.modules


def test_tf2__slots_have_the_name_of_their_variable(samples: dict[str, Path]) -> None:
    values, expected = read_tensors(samples['slots']), _expected('tf2_small')
    assert expected.keys() <= values.keys()
    momenta = {name for name in values if name.endswith('/momentum')} - {'optimizer/momentum'}
    assert {name.removesuffix('/momentum') for name in momenta} == {
        name for name in expected if '/moving_' not in name
    }


def test_tf2__attribute_paths_where_names_are_absent(tmp_path: Path) -> None:
    key = 'model/backbone/_blocks/0/_bn1/gamma/.ATTRIBUTES/VARIABLE_VALUE'
    average = key.replace('/.ATT', '/.OPTIMIZER_SLOT/optimizer/average/.ATT')
    write_bundle(
        tmp_path / 'x', {key: torch.ones(2), average: torch.zeros(2)}, full_names={key: ''}
    )
    with open_source(tmp_path) as source:
        assert source.key_map is OBJECTS
        assert set(source.shapes) == {
            'model/backbone/_blocks/0/_bn1/gamma',
            'model/backbone/_blocks/0/_bn1/gamma/ExponentialMovingAverage',
        }


def test_npz__names_shapes_and_orders(tmp_path: Path) -> None:
    fortran = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    big = np.arange(3, dtype='>f4')
    np.savez(tmp_path / 'x.npz', **{'a|b': fortran, 'c/d': big, 'e': np.float32(2)})
    values = read_tensors(tmp_path / 'x.npz')
    assert set(values) == {'a/b', 'c/d', 'e'}
    np.testing.assert_array_equal(values['a/b'].numpy(), fortran)
    assert values['c/d'].tolist() == [0, 1, 2]
    assert values['e'].shape == ()


@pytest.mark.parametrize(
    ('name', 'key_map'),
    [
        ('module.neck.cells.0.nodes.0.bn.weight', OWN),
        ('model.fpn.cell.0.fnode.0.after_combine.conv.bn.weight', EFFDET),
        ('class_net.conv_rep.0.conv_dw.weight', EFFDET),
    ],
)
def test_torch__key_map_from_names(tmp_path: Path, name: str, key_map: KeyMap) -> None:
    torch.save({'state_dict': {name: torch.ones(2)}}, tmp_path / 'x.pth')
    with open_source(tmp_path / 'x.pth') as source:
        assert source.key_map is key_map


def test_torch__averages_by_default(tmp_path: Path) -> None:
    name = 'class_net.conv_rep.0.conv_dw.weight'
    timm = {
        'state_dict': {name: torch.ones(2)},
        'state_dict_ema': {name: torch.zeros(2)},
        'epoch': 3,
    }
    torch.save(timm, tmp_path / 'timm.pth')
    ours = 'neck.cells.0.nodes.0.bn.weight'
    hooked = {
        'state_dict': {ours: torch.zeros(2)},
        'ema_state_dict': {f'module.{ours}': torch.ones(2), 'steps': torch.tensor(3)},
        'meta': {'epoch': 1},
    }
    torch.save(hooked, tmp_path / 'ours.pth')
    for file in ('timm.pth', 'ours.pth'):
        for raw, expected in ((False, [0, 0]), (True, [1, 1])):
            with open_source(tmp_path / file, raw) as source:
                assert source.read(next(iter(source.shapes))).tolist() == expected


KINDS = [
    'tf1',
    'tf2',
    'slots',
    'tar.gz',
    'tar',
    'h5',
    'plain.npz',
    'compressed.npz',
    'effdet.pth',
    'legacy.pth',
]


@pytest.mark.parametrize('kind', KINDS)
def test_truncated__is_refused_in_one_line(
    samples: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    if kind == 'h5':
        pytest.importorskip('h5py')
    source = samples[kind]
    intact = source if source.is_file() else source.with_name(source.name + '.index')
    intact = _sample('tf1_small/model.index') if kind == 'tf1' else intact
    folder = tmp_path / 'cut'
    folder.mkdir()
    for path in intact.parent.glob(f'{intact.stem}.*'):
        shutil.copyfile(path, folder / path.name)
    target, data = folder / intact.name, intact.read_bytes()
    # Behind its last member a plain .tar holds only zeros.
    end = len(data.rstrip(b'\0')) if kind == 'tar' else len(data)
    for cut in [0, 1, *(random.randrange(end) for _ in range(CUTS))]:
        target.write_bytes(data[:cut])
        with pytest.raises(CheckpointError) as caught:
            read_tensors(target)
        assert '\n' not in str(caught.value)
        assert str(folder) in str(caught.value)


@pytest.mark.parametrize('kind', ['tar.gz', 'h5', 'plain.npz', 'compressed.npz', 'effdet.pth'])
def test_flipped_bytes__are_refused_or_read(
    samples: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    if kind == 'h5':
        pytest.importorskip('h5py')
    data = samples[kind].read_bytes()
    target = tmp_path / f'flipped{samples[kind].suffix}'
    for _ in range(100):
        out = bytearray(data)
        for _ in range(random.randint(1, 4)):
            out[random.randrange(len(out))] = random.randrange(256)
        target.write_bytes(bytes(out))
        with suppress(CheckpointError):
            read_tensors(target)


class _Touch:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('new_format', [True, False])
def test_torch__code_is_not_run(tmp_path: Path, new_format: bool) -> None:
    trap = tmp_path / 'was_run'
    content = {'class_net.conv_rep.0.x': torch.ones(1), 'trap': _Touch(trap)}
    torch.save(content, tmp_path / 'x.pth', _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=r'x\.pth: .*\w+\.mkdir') as caught:
        read_tensors(tmp_path / 'x.pth')
    assert '\n' not in str(caught.value)
    assert not trap.exists()


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('fc.weight', 'no EfficientDet weights'),
        ('backbone.conv1.weight', 'its first tensor is backbone.conv1.weight'),
    ],
)
def test_torch__weights_of_others(tmp_path: Path, name: str, message: str) -> None:
    torch.save({name: torch.ones(1)}, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=message):
        read_tensors(tmp_path / 'x.pth')


@pytest.mark.parametrize(
    ('content', 'held'),
    [([torch.ones(1)], 'list'), ({'epoch': 3}, 'no tensors'), (torch.ones(2), 'Tensor')],
    ids=['list', 'dict', 'tensor'],
)
def test_torch__no_named_tensors(tmp_path: Path, content: object, held: str) -> None:
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=rf'x\.pth: .*{held}'):
        read_tensors(tmp_path / 'x.pth')


def test_h5__missing_reader_names_the_extra(
    samples: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'h5py', None)
    with pytest.raises(InstallError, match=r'weights\.h5.*pip install h5py .*effdet_plugin\[h5\]'):
        read_tensors(samples['h5'])


def test_h5__more_than_is_stored(tmp_path: Path) -> None:
    h5py = pytest.importorskip('h5py')
    with h5py.File(tmp_path / 'x.h5', 'w') as file:
        file.create_dataset('layer/a:0', shape=(1 << 40,), dtype='f4', chunks=(1 << 10,))
    with pytest.raises(CheckpointError, match=r'x\.h5: layer/a:0 .*stored'):
        read_tensors(tmp_path / 'x.h5')


def test_h5__data_in_another_file(tmp_path: Path) -> None:
    h5py = pytest.importorskip('h5py')
    (tmp_path / 'secret').write_bytes(bytes(64))
    with h5py.File(tmp_path / 'x.h5', 'w') as file:
        outside = [(str(tmp_path / 'secret'), 0, 64)]
        file.create_dataset('layer/a:0', shape=(16,), dtype='f4', external=outside)
    with pytest.raises(CheckpointError, match=r'x\.h5: layer/a:0 .*numbers'):
        read_tensors(tmp_path / 'x.h5')


def test_archive__holds_one_keras_file(samples: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip('h5py')
    with tarfile.open(tmp_path / 'x.tgz', 'w:gz') as archive:
        archive.add(samples['h5'], 'lite0/weights.h5')
    assert read_tensors(tmp_path / 'x.tgz').keys() == _expected('tf2_small').keys()


def test_archive__leaves_nothing_behind(
    samples: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path / 'temporary'))
    (tmp_path / 'temporary').mkdir()
    read_tensors(samples['tar.gz'])
    assert not list((tmp_path / 'temporary').iterdir())


def test_folder__points_to_its_current_checkpoint(tmp_path: Path) -> None:
    for number in (1, 2):
        write_bundle(tmp_path / f'model.ckpt-{number}', {'step': torch.tensor(number)})
    assert read_tensors(tmp_path)['step'] == 2
    assert read_tensors(tmp_path / 'checkpoint')['step'] == 2
    assert read_tensors(tmp_path / 'model.ckpt-1')['step'] == 1
    assert read_tensors(tmp_path / 'model.ckpt-1.data-00000-of-00001')['step'] == 1
    (tmp_path / 'checkpoint').unlink()
    with pytest.raises(CheckpointError, match=r'\(model\.ckpt-1, model\.ckpt-2\): name one'):
        read_tensors(tmp_path)


def test_open__nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'absent\.npz: no such file'):
        read_tensors(tmp_path / 'absent.npz')
    with pytest.raises(CheckpointError, match=rf'{tmp_path.name}: .*\.index'):
        read_tensors(tmp_path)
    (tmp_path / 'notes.txt').write_text('weights')
    with pytest.raises(CheckpointError, match=r'notes\.txt: .*\.index.*\.npz.*\.h5.*\.pth'):
        read_tensors(tmp_path / 'notes.txt')
    with gzip.open(tmp_path / 'x.gz', 'wb') as file:
        file.write(b'weights')
    with pytest.raises(CheckpointError, match=r'x\.gz: '):
        read_tensors(tmp_path / 'x.gz')


def test_open__key_map_of_variables(samples: dict[str, Path]) -> None:
    for kind in ('tf1', 'tf2', 'plain.npz'):
        with open_source(samples[kind]) as source:
            assert source.key_map is VARIABLES
            assert len(source.sha256) == 64
