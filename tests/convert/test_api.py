"""Whole conversions: every source to ours, and back."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from reference_variables import (
    MODELS,
    numbered_values,
    parameters,
    recipe_values,
    structure_of,
    variables,
)
from tf_writer import write_bundle
from torch import Tensor

from effdet_plugin import __version__
from effdet_plugin.convert import convert
from effdet_plugin.convert.coco_ids import NAMES
from effdet_plugin.convert.key_map import expand
from effdet_plugin.convert.key_map_tensorflow import OBJECTS, VARIABLES
from effdet_plugin.convert.networks import state_shapes
from effdet_plugin.errors import CheckpointError

EMA = '/ExponentialMovingAverage'
VALUE = '/.ATTRIBUTES/VARIABLE_VALUE'


def _write_npz(path: Path, values: dict[str, Tensor]) -> Path:
    np.savez(path, **{name: value.numpy() for name, value in values.items()})
    return path


def _equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Bit by bit, with names, order of dimensions and types."""
    return left.keys() == right.keys() and all(
        value.shape == right[name].shape
        and value.dtype == right[name].dtype
        and value.contiguous().view(-1).numpy().tobytes()
        == right[name].contiguous().view(-1).numpy().tobytes()
        for name, value in left.items()
    )


@pytest.fixture(scope='module')
def values() -> dict[str, Tensor]:
    return numbered_values('d0')


@pytest.fixture(scope='module')
def d0(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Tensor]) -> Path:
    """D0 by TensorFlow names."""
    return _write_npz(tmp_path_factory.mktemp('api') / 'd0.npz', values)


@pytest.fixture(scope='module')
def ours(d0: Path) -> dict[str, Tensor]:
    return convert(d0, classes=90).state_dict


def test_convert__meta_and_report(d0: Path) -> None:
    result = convert(d0)
    assert result.meta['dataset_meta'] == {'classes': NAMES}
    assert result.meta['effdet_plugin_version'] == __version__
    assert result.meta['model'] == 'd0'
    assert result.meta['source'] == 'd0.npz'
    assert len(result.meta['sha256']) == 64
    assert result.meta['anchor_aspects'] == 'sqrt2'
    shapes = {name: tuple(value.shape) for name, value in result.state_dict.items()}
    assert shapes == state_shapes(structure_of('d0', num_classes=80))
    report = result.report
    assert report.parameters == 3_880_067
    assert report.statistics == 47_136
    assert report.written_parameters == 3_880_067 - 10 * 9 * 65
    assert sum(len(sources) for sources in report.mapped.values()) == len(variables('d0')) == 709
    text = '\n'.join(report.lines())
    assert '3,880,067 trainable' in text
    assert 'mapped      709 tensors to 676' in text


def test_convert__saved_file_loads_weights_only_and_is_reproducible(
    d0: Path, tmp_path: Path
) -> None:
    for name in ('a.pth', 'b.pth'):
        convert(d0).save(tmp_path / name)
    assert (tmp_path / 'a.pth').read_bytes() == (tmp_path / 'b.pth').read_bytes()
    content = torch.load(tmp_path / 'a.pth', weights_only=True)
    assert set(content) == {'meta', 'state_dict'}
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.pth', 'b.pth']


def test_convert__cannot_write(d0: Path, tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(CheckpointError, match='cannot be written'):
        convert(d0).save(tmp_path / 'file' / 'x.pth')


@pytest.mark.parametrize('to', ['mmengine', 'effdet', 'npz'])
def test_convert__there_and_back_is_bit_equal(
    d0: Path, ours: dict[str, Tensor], values: dict[str, Tensor], tmp_path: Path, to: str
) -> None:
    path = tmp_path / ('x.npz' if to == 'npz' else 'x.pth')
    convert(d0, classes=90, to=to).save(path)
    assert _equal(convert(path, classes=90).state_dict, ours)
    assert _equal(convert(path, classes=90, to='npz').state_dict, values)


def test_convert__own_checkpoint_keeps_its_meta(d0: Path, tmp_path: Path) -> None:
    names = tuple(f'thing {i}' for i in range(90))
    convert(d0, classes=names).save(tmp_path / 'x.pth')
    assert convert(tmp_path / 'x.pth').meta['dataset_meta']['classes'] == names


def test_convert__tf1_takes_the_averages(
    values: dict[str, Tensor], ours: dict[str, Tensor], tmp_path: Path
) -> None:
    raw = {name: torch.full_like(value, 0.5) for name, value in values.items()}
    averaged = {name + EMA: value for name, value in values.items()}
    slots = {f'{name}/Momentum': torch.zeros(1) for name in list(values)[:5]}
    step = {'global_step': torch.tensor(7)}
    write_bundle(tmp_path / 'model', {**raw, **averaged, **slots, **step}, num_shards=2)
    result = convert(tmp_path, classes=90)
    assert _equal(result.state_dict, ours)
    assert result.meta['is_averaged']
    reasons = list(result.report.left_out.values())
    assert reasons.count('raw value; its moving average is used') == len(values)
    assert reasons.count('optimizer slot') == 5
    assert reasons.count('step counter') == 1
    weight = convert(tmp_path, raw=True).state_dict['backbone.model.conv_stem.weight']
    assert weight.eq(0.5).all()


def test_convert__without_google_crc32c_the_report_says_so(
    values: dict[str, Tensor],
    ours: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_bundle(tmp_path / 'model', values)
    assert not any('google-crc32c' in note for note in convert(tmp_path).report.notes)
    monkeypatch.setitem(sys.modules, 'google_crc32c', None)
    result = convert(tmp_path, classes=90)
    assert _equal(result.state_dict, ours)
    assert any('pip install google-crc32c' in note for note in result.report.notes)


def _attribute_keys() -> dict[str, str]:
    """Variable name -> key in an object checkpoint."""
    structure = structure_of('d0')
    shapes = state_shapes(structure)
    by_ours = {pair.ours: pair.sources for pair in expand(OBJECTS, structure, shapes)}
    return {
        name: f'model/{path}{VALUE}'
        for pair in expand(VARIABLES, structure, shapes)
        for name, path in zip(pair.sources, by_ours[pair.ours], strict=True)
    }


@pytest.mark.parametrize('has_names', [True, False])
def test_convert__tf2_object_checkpoint(
    values: dict[str, Tensor], ours: dict[str, Tensor], tmp_path: Path, has_names: bool
) -> None:
    keys = _attribute_keys()
    slot = '/.OPTIMIZER_SLOT/optimizer/average'
    tensors = {key: torch.zeros_like(values[name]) for name, key in keys.items()}
    tensors |= {key.replace(VALUE, slot + VALUE): values[name] for name, key in keys.items()}
    tensors |= {f'optimizer/iter{VALUE}': torch.tensor(3), f'save_counter{VALUE}': torch.tensor(1)}
    full = {key: f'net/{name}' if has_names else '' for name, key in keys.items()}
    write_bundle(tmp_path / 'ckpt-1', tensors, full_names=full)
    result = convert(tmp_path / 'ckpt-1', classes=90)
    assert _equal(result.state_dict, ours)
    assert result.report.left_out['_CHECKPOINTABLE_OBJECT_GRAPH']
    assert convert(tmp_path, raw=True).state_dict['backbone.model.conv_stem.weight'].eq(0).all()


def test_convert__keras_h5(
    values: dict[str, Tensor], ours: dict[str, Tensor], tmp_path: Path
) -> None:
    h5py = pytest.importorskip('h5py')
    with h5py.File(tmp_path / 'x.h5', 'w') as file:
        for name, value in values.items():
            layer = name.split('/')[0]
            numbered = name.replace('/stem/conv2d/', '/stem_1/conv2d_1/')
            file[f'{layer}/{numbered}:0'] = value.numpy()
    assert _equal(convert(tmp_path / 'x.h5', classes=90).state_dict, ours)


def _there_and_back(model: str, values: dict[str, Tensor], folder: Path) -> None:
    result = convert(_write_npz(folder / 'x.npz', values), model, 90)
    assert result.report.parameters == parameters(model)['trainable']
    result.save(folder / 'x.pth')
    assert _equal(convert(folder / 'x.pth', classes=90, to='npz').state_dict, values)


@pytest.mark.parametrize('model', ['lite0', 'd0'])
def test_convert__recipe_from_npz(model: str, tmp_path: Path) -> None:
    _there_and_back(model, recipe_values(model), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('model', [model for model in MODELS if model not in ('lite0', 'd0')])
def test_convert__from_npz_all(model: str, tmp_path: Path) -> None:
    """All values are different; to compute the recipe's takes longer than to convert them."""
    _there_and_back(model, numbered_values(model), tmp_path)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_convert__other_precisions_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    values = {name: torch.full(shape, 0.1, dtype=dtype) for name, shape in variables('d0').items()}
    write_bundle(tmp_path / 'model', values)
    weight = convert(tmp_path).state_dict['backbone.model.conv_stem.weight']
    assert weight.dtype == torch.float32
    assert weight.flatten()[0] == torch.tensor(0.1, dtype=dtype).float()


def test_convert__wrong_model_and_format(d0: Path) -> None:
    with pytest.raises(CheckpointError, match=r'd0\.npz: .* of d0 .* of d1 .*--model d0') as caught:
        convert(d0, 'd1')
    assert '\n' not in str(caught.value)
    with pytest.raises(CheckpointError, match='--to onnx: choose one of'):
        convert(d0, to='onnx')


def test_convert__unknown_tensor_is_an_error(tmp_path: Path) -> None:
    values = {name: torch.zeros(shape) for name, shape in variables('lite0').items()}
    values['efficientnet-lite0/head/conv2d/kernel'] = torch.zeros(1, 1, 320, 1280)
    with pytest.raises(CheckpointError, match='1 without a place: efficientnet-lite0/head'):
        convert(_write_npz(tmp_path / 'x.npz', values))


def test_convert__tiny_samples_are_incomplete_networks() -> None:
    import support

    for name in ('tf1_small/model.index', 'tf2_small/ckpt-7.index'):
        with pytest.raises(CheckpointError, match='resample_p6/conv2d'):
            convert(support.oracle_file(name))


def test_convert__notes_what_a_person_should_know(tmp_path: Path) -> None:
    values = {name: torch.zeros(shape) for name, shape in variables('d0').items()}
    values = {name: value for name, value in values.items() if '/WSM' not in name}
    notes = ' '.join(convert(_write_npz(tmp_path / 'x.npz', values)).report.notes)
    assert 'fusion weights: sum (the usual d0 has scalar)' in notes


@pytest.mark.parametrize('value', ['nan', 'inf', '-inf'])
def test_convert__weights_that_are_not_finite_are_refused_by_name(
    tmp_path: Path, value: str
) -> None:
    values = {name: torch.zeros(shape) for name, shape in variables('d0').items()}
    values['class_net/class-predict/bias'][3] = float(value)
    path = _write_npz(tmp_path / 'x.npz', values)
    with pytest.raises(CheckpointError, match=r'x\.npz.*class_net/class-predict/bias.*infinity'):
        convert(path)


def test_convert__numbers_that_only_float64_holds_are_refused(tmp_path: Path) -> None:
    values = {name: torch.zeros(shape) for name, shape in variables('d0').items()}
    name = 'class_net/class-predict/bias'
    values[name] = values[name].double()
    convert(_write_npz(tmp_path / 'x.npz', values))
    values[name][3] = 1e300
    with pytest.raises(CheckpointError, match=r'x\.npz.*class_net/class-predict/bias.*infinity'):
        convert(_write_npz(tmp_path / 'x.npz', values))


@pytest.mark.parametrize('is_level_first', [False, True])
def test_convert__native_effdet_model(tmp_path: Path, is_level_first: bool) -> None:
    effdet = pytest.importorskip('effdet', reason='makes a model of effdet from PyPI')
    network = effdet.create_model('efficientdet_d0', pretrained=False, pretrained_backbone=False)
    norm = network.class_net.bn_rep[2][4][0]
    torch.nn.init.constant_(norm.weight, 7.0)
    if is_level_first:
        network.toggle_head_bn_level_first()
    content = {'state_dict': network.state_dict(), 'optimizer': {'lr': 1.0}, 'epoch': 3}
    torch.save(content, tmp_path / 'x.pth')
    result = convert(tmp_path / 'x.pth', classes=90)
    assert result.state_dict['bbox_head.cls_tower.norms.2.4.weight'].eq(7).all()
    assert result.state_dict['bbox_head.cls_tower.norms.1.4.weight'].eq(1).all()
    assert result.meta['padding'] == 'symmetric'
    assert result.meta['anchor_aspects'] == 'pairs_1.4_0.7'
    biases = [name for name in result.report.filled if name.endswith('.bias')]
    assert len(biases) == 36
    assert set(result.report.left_out) == {'optimizer', 'epoch'}


def test_convert__equal_networks_are_told_apart_by_the_caller(tmp_path: Path) -> None:
    # Stored as one byte each: half a gigabyte of floats would only cost time.
    arrays = {name: np.broadcast_to(np.int8(0), shape) for name, shape in variables('d6').items()}
    np.savez(tmp_path / 'x.npz', **arrays)
    result = convert(tmp_path / 'x.npz')
    assert result.meta['model'] == 'd6'
    assert '--model d6 or d7' in ' '.join(result.report.notes)
    assert convert(tmp_path / 'x.npz', 'd7').meta['model'] == 'd7'
