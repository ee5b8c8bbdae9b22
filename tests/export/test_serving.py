"""Model repositories: their files, versions and configs, and what cannot be served."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from effdet_plugin.errors import ConfigError
from effdet_plugin.export import serving as module
from effdet_plugin.export.metadata import Metadata
from effdet_plugin.export.serving import serve, triton_config

# The keys of a model in OpenVINO Model Server's MODELS_CONFIG_SCHEMA, which takes no others
# (openvinotoolkit/model_server, src/schema.cpp).
OVMS_TYPES: dict[str, Any] = {
    'name': str, 'base_path': str, 'batch_size': (int, str), 'model_version_policy': dict,
    'shape': (dict, str), 'nireq': int, 'target_device': str, 'plugin_config': dict,
    'stateful': bool, 'idle_sequence_cleanup': bool, 'low_latency_transformation': bool,
    'max_sequence_number': int, 'custom_loader_options': dict,
}  # fmt: skip


def metadata(**changes: Any) -> Metadata:
    known: dict[str, Any] = dict(
        format='onnx', classes=('cat', 'dog'), image_size=(128, 192), mean=(127.0,) * 3,
        std=(128.0,) * 3, pad_value=0.0, resize_mode='letterbox', resize_dtype='uint8',
        end='postprocess', nms={'max_per_img': 50}, input='float', precision='fp32', version='1',
        checkpoint_sha256='', config='{}',
    )  # fmt: skip
    return Metadata(**{**known, **changes})


class Loaded:
    def __init__(self, known: Metadata) -> None:
        self.metadata = known


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of which only the bytes count: what is in it is faked."""
    monkeypatch.setattr(module, 'load_runtime', lambda path: Loaded(metadata()))
    (tmp_path / 'cats.onnx').write_bytes(b'one')
    return tmp_path / 'cats.onnx'


def files_of(folder: Path) -> list[str]:
    return sorted(str(x.relative_to(folder)) for x in folder.rglob('*') if x.is_file())


def test_triton__repository(file: Path, tmp_path: Path) -> None:
    served = serve(file, 'triton', tmp_path / 'models')
    assert (served.name, served.version) == ('cats', 1)
    assert files_of(tmp_path / 'models') == [
        'cats.client.json', 'cats/1/model.onnx', 'cats/config.pbtxt',
    ]  # fmt: skip
    assert (tmp_path / 'models' / 'cats' / '1' / 'model.onnx').read_bytes() == b'one'
    info = json.loads(served.client.read_text())
    assert info['model'] == 'cats'
    assert info['classes'] == ['cat', 'dog']
    assert info['image_size'] == [128, 192]


def test_versions__a_new_file_is_the_next(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'models' / 'cats'
    versions = [serve(file, 'triton', tmp_path / 'models').version for _ in range(2)]
    file.write_bytes(b'two')
    versions.append(serve(file, 'triton', tmp_path / 'models').version)
    assert versions == [1, 1, 2]
    assert [(folder / n / 'model.onnx').read_bytes() for n in '12'] == [b'one', b'two']


def triton_proto() -> Any:
    """Triton's own description of its configs, generated from ``model_config.proto``."""
    pytest.importorskip('google.protobuf')
    found = importlib.util.find_spec('tritonclient')
    places = list(found.submodule_search_locations or []) if found else []
    path = next(
        (p for p in (Path(x) / 'grpc' / 'model_config_pb2.py' for x in places) if p.exists()), None
    )
    if path is None:
        pytest.skip('needs tritonclient (pip install tritonclient), for its model_config.proto')
    # Not by its package, which needs gRPC.
    spec = importlib.util.spec_from_file_location('model_config_pb2', path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.export
def test_triton__config_is_one_of_its_proto() -> None:
    from google.protobuf import text_format

    proto = triton_proto()
    config = text_format.Parse(triton_config('cats', metadata()), proto.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ('cats', 'onnxruntime', 8)
    assert config.HasField('dynamic_batching')
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    (images,) = config.input
    assert (images.name, images.data_type, list(images.dims)) == (
        'images', proto.TYPE_FP32, [3, 128, 192],
    )  # fmt: skip
    outputs = {x.name: (x.data_type, list(x.dims), x.HasField('reshape')) for x in config.output}
    assert outputs == {
        'boxes': (proto.TYPE_FP32, [50, 4], False),
        'scores': (proto.TYPE_FP32, [50], False),
        'labels': (proto.TYPE_INT64, [50], False),
        'num': (proto.TYPE_INT64, [1], True),
    }
    raw = text_format.Parse(triton_config('cats', metadata(input='uint8')), proto.ModelConfig())
    assert (raw.input[0].data_type, list(raw.input[0].dims)) == (proto.TYPE_UINT8, [-1, -1, 3])


def test_triton__text() -> None:
    text = triton_config('cats', metadata())
    for line in (
        'name: "cats"',
        'max_batch_size: 8',
        '{ name: "images" data_type: TYPE_FP32 dims: [ 3, 128, 192 ] }',
        '{ name: "num" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } }',
        'dynamic_batching { max_queue_delay_microseconds: 2000 }',
    ):
        assert line in text


def test_ovms__repository_beside_other_models(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(file, 'ovms', tmp_path / 'models')
    monkeypatch.setattr(module, 'load_runtime', lambda path: Loaded(metadata(format='openvino')))
    (tmp_path / 'dogs.xml').write_bytes(b'<net')
    (tmp_path / 'dogs.bin').write_bytes(b'weights')
    served = [serve(tmp_path / 'dogs.xml', 'ovms', tmp_path / 'models') for _ in range(2)]
    assert [x.version for x in served] == [1, 1]
    assert files_of(tmp_path / 'models') == [
        'cats.client.json', 'cats/1/model.onnx', 'config.json', 'dogs.client.json',
        'dogs/1/model.bin', 'dogs/1/model.xml',
    ]  # fmt: skip
    config = json.loads(served[1].config.read_text())
    assert list(config) == ['model_config_list']
    entries = [entry['config'] for entry in config['model_config_list']]
    assert [entry['name'] for entry in entries] == ['cats', 'dogs']
    for entry in entries:
        assert all(isinstance(value, OVMS_TYPES[key]) for key, value in entry.items())
        assert (tmp_path / 'models' / entry['base_path'] / '1').is_dir()


@pytest.mark.parametrize(
    ('changes', 'engine', 'words'),
    [
        ({'end': 'raw'}, 'triton', '--end postprocess'),
        ({'image_size': None, 'end': 'raw'}, 'ovms', '--dynamic'),
        ({'format': 'pt2'}, 'ovms', 'openvino or onnx'),
        ({'format': 'openvino'}, 'triton', '--format onnx'),
        ({}, 'torchserve', 'triton or ovms'),
    ],
)
def test_refused(
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    engine: str,
    words: str,
) -> None:
    monkeypatch.setattr(module, 'load_runtime', lambda path: Loaded(metadata(**changes)))
    with pytest.raises(ConfigError, match=words):
        serve(file, engine, tmp_path / 'models')
    assert not (tmp_path / 'models').exists()


def test_refused__names_and_configs_of_others(file: Path, tmp_path: Path) -> None:
    odd = file.rename(tmp_path / 'two words.onnx')
    with pytest.raises(ConfigError, match='letters, digits'):
        serve(odd, 'triton', tmp_path / 'models')
    odd.rename(file)
    (tmp_path / 'models').mkdir()
    (tmp_path / 'models' / 'config.json').write_text('{"models": []}')
    with pytest.raises(ConfigError, match='model_config_list'):
        serve(file, 'ovms', tmp_path / 'models')
    assert (tmp_path / 'models' / 'config.json').read_text() == '{"models": []}'
    assert files_of(tmp_path / 'models') == ['config.json']
