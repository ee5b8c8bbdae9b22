import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tf_writer import bytes_field, varint_field, write_bundle, write_table

import support
from effdet_plugin.convert.tf_checkpoint import TensorBundle
from effdet_plugin.convert.tf_index import read_table
from effdet_plugin.errors import CheckpointError

MUTATIONS = settings(max_examples=500, derandomize=True)


def _sample(folder: str, prefix: str) -> Path:
    return support.oracle_file(f'{folder}/{prefix}.index').with_name(prefix)


def _read_all(prefix: Path) -> dict[str, torch.Tensor]:
    bundle = TensorBundle(prefix)
    return {name: bundle.read(name) for name, entry in bundle.entries.items() if entry.dtype != 7}


def test_tf1_small__every_tensor_is_the_expected_one() -> None:
    prefix = _sample('tf1_small', 'model')
    expected = np.load(prefix.with_name('expected.npz'))
    values = _read_all(prefix)
    assert set(values) == {name.replace('|', '/') for name in expected.files}
    for name in expected.files:
        value = values[name.replace('|', '/')]
        value = value.float() if value.dtype == torch.bfloat16 else value
        assert value.shape == expected[name].shape
        np.testing.assert_array_equal(value.numpy(), expected[name])


def test_tf1_small__keeps_types() -> None:
    values = _read_all(_sample('tf1_small', 'model'))
    assert values['half/values'].dtype == torch.bfloat16
    assert values['global_step'].dtype == torch.int64
    assert values['global_step'].shape == ()


@pytest.mark.parametrize('num_shards', [1, 3])
def test_write_read__all_types_and_shards(tmp_path: Path, num_shards: int) -> None:
    tensors = {
        'a/float': torch.rand(3, 4),
        'a/double': torch.rand(2, dtype=torch.float64),
        'a/half': torch.rand(5).half(),
        'a/int': torch.tensor(-7, dtype=torch.int32),
        'b/flags': torch.tensor([True, False]),
        'b/empty': torch.empty(0, 3),
        **{f'many/{i}': torch.full((20,), float(i)) for i in range(300)},
    }
    write_bundle(tmp_path / 'model', tensors, num_shards)
    values = _read_all(tmp_path / 'model')
    assert values.keys() == tensors.keys()
    for name, value in tensors.items():
        assert values[name].dtype == value.dtype
        torch.testing.assert_close(values[name], value, rtol=0, atol=0)


def test_open__missing_data_file(tmp_path: Path) -> None:
    write_bundle(tmp_path / 'model', {'a': torch.ones(2), 'b': torch.ones(2)}, num_shards=2)
    (tmp_path / 'model.data-00001-of-00002').unlink()
    with pytest.raises(CheckpointError, match='00001-of-00002 is missing'):
        TensorBundle(tmp_path / 'model')


def test_read__damaged_data(tmp_path: Path) -> None:
    write_bundle(tmp_path / 'model', {'a': torch.ones(2000), 'b': torch.ones(2)})
    path = tmp_path / 'model.data-00000-of-00001'
    data = bytearray(path.read_bytes())
    data[4321] ^= 1
    path.write_bytes(bytes(data))
    bundle = TensorBundle(tmp_path / 'model')
    assert bundle.read('b').tolist() == [1, 1]
    with pytest.raises(CheckpointError, match='the data of a is damaged'):
        bundle.read('a')


def _write_index(folder: Path, entries: dict[bytes, bytes], **kwargs: int) -> Path:
    header = entries.pop(b'', varint_field(1, 1))
    (folder / 'model.index').write_bytes(write_table({b'': header, **entries}, **kwargs))
    (folder / 'model.data-00000-of-00001').write_bytes(bytes(8))
    return folder / 'model'


@pytest.mark.parametrize(
    ('entry', 'reason'),
    [
        (varint_field(1, 1) + bytes_field(7, b''), 'partitioned'),
        (varint_field(1, 1) + bytes_field(2, varint_field(3, 1)), 'unknown shape'),
        (varint_field(1, 1) + bytes_field(2, bytes_field(2, varint_field(1, -1))), 'unknown shape'),
        (varint_field(1, 1) + varint_field(3, 5), 'lies in no data file'),
        (varint_field(1, 1) + varint_field(4, 6) + varint_field(5, 4), 'cut off'),
        (varint_field(1, 1) + varint_field(4, -4) + varint_field(5, 4), 'cut off'),
        (varint_field(1, 1) + varint_field(5, 8), 'has 8 bytes where 4 are needed'),
        (bytes_field(1, b'x'), 'not a number'),
    ],
)
def test_open__bad_entries(tmp_path: Path, entry: bytes, reason: str) -> None:
    prefix = _write_index(tmp_path, {b'a': entry})
    with pytest.raises(CheckpointError, match=reason):
        TensorBundle(prefix)


def test_open__huge_shape_is_not_allocated(tmp_path: Path) -> None:
    dims = b''.join(bytes_field(2, varint_field(1, 1 << 40)) for _ in range(3))
    prefix = _write_index(tmp_path, {b'a': varint_field(1, 1) + bytes_field(2, dims)})
    with pytest.raises(CheckpointError, match='bytes where'):
        TensorBundle(prefix)


def test_open__big_endian_and_compressed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match='big-endian'):
        TensorBundle(_write_index(tmp_path, {b'': varint_field(1, 1) + varint_field(2, 1)}))
    with pytest.raises(CheckpointError, match='compressed'):
        TensorBundle(_write_index(tmp_path, {}, compression=1))


def test_read__type_without_numbers(tmp_path: Path) -> None:
    prefix = _write_index(tmp_path, {b'a': varint_field(1, 20)})
    with pytest.raises(CheckpointError, match='type \\(20\\) without numbers'):
        TensorBundle(prefix).read('a')


@pytest.fixture(scope='module')
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Writable copies of the samples."""
    result = {}
    for folder, prefix in (('tf1_small', 'model'), ('tf2_small', 'ckpt-7')):
        target = tmp_path_factory.mktemp(folder)
        for path in _sample(folder, prefix).parent.glob(f'{prefix}.*'):
            shutil.copyfile(path, target / path.name)
        result[folder] = target / prefix
    return result


def _mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """One to four bytes changed, inserted or taken out, or the end cut off."""
    at, byte = st.integers(0, len(data) - 1), st.integers(0, 255)
    change = st.tuples(st.sampled_from(['set', 'insert', 'delete', 'cut']), at, byte)

    def apply(changes: list[tuple[str, int, int]]) -> bytes:
        out = bytearray(data)
        for kind, position, value in changes:
            position = min(position, max(len(out) - 1, 0))
            if kind == 'cut':
                del out[position:]
            elif kind == 'insert':
                out.insert(position, value)
            elif out:
                out[position : position + 1] = b'' if kind == 'delete' else bytes([value])
        return bytes(out)

    return st.lists(change, min_size=1, max_size=4).map(apply).filter(lambda out: out != data)


@pytest.mark.parametrize('folder', ['tf1_small', 'tf2_small'])
def test_mutated_index__is_refused(copies: dict[str, Path], folder: str) -> None:
    prefix = copies[folder]
    index = prefix.with_name(prefix.name + '.index')
    intact = _sample(folder, prefix.name).with_name(index.name).read_bytes()

    @MUTATIONS
    @given(_mutated(intact))
    def check(data: bytes) -> None:
        index.write_bytes(data)
        with pytest.raises(CheckpointError):
            TensorBundle(prefix)

    check()


def test_mutated_entries_with_right_checksums__are_refused_or_read(copies: dict[str, Path]) -> None:
    prefix = copies['tf1_small']
    index = prefix.with_name('model.index')
    intact = read_table(_sample('tf1_small', 'model').with_name('model.index').read_bytes())
    keys = sorted(intact)

    @MUTATIONS
    @given(st.data())
    def check(draw: st.DataObject) -> None:
        key = draw.draw(st.sampled_from(keys))
        value = draw.draw(_mutated(intact[key]) if intact[key] else st.binary(max_size=20))
        index.write_bytes(write_table({**intact, key: value}, block_bytes=200))
        try:
            _read_all(prefix)
        except CheckpointError:
            return

    check()


def test_truncated__index_and_data(copies: dict[str, Path]) -> None:
    for folder, prefix in copies.items():
        for source in sorted(_sample(folder, prefix.name).parent.glob(f'{prefix.name}.*')):
            data, target = source.read_bytes(), prefix.with_name(source.name)
            for cut in torch.randint(0, len(data), (20,)).tolist():
                target.write_bytes(data[:cut])
                with pytest.raises(CheckpointError):
                    _read_all(prefix)
            target.write_bytes(data)
        assert _read_all(prefix)
