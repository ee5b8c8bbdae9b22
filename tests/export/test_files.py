"""Files of all formats, written, loaded, and compared with PyTorch: Lite0 with odd sizes of levels.

The input is not square, and its levels of 40x24, 20x12, 10x6, 5x3 and 3x2 pixels have odd sides.
"""

import re
import signal
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_networks import NEEDS_RUNTIMES, images, limit_of, network
from forked import in_child

from effdet_plugin.errors import CheckpointError
from effdet_plugin.export import api, check
from effdet_plugin.export.acceptance import ENDS, FILES, examine, write_files
from effdet_plugin.export.onnx import with_plain_pooling
from effdet_plugin.export.openvino import core
from effdet_plugin.export.runtime import load_runtime
from effdet_plugin.inference import Detector
from effdet_plugin.trained_model import TrainedModel

pytestmark = NEEDS_RUNTIMES

SIZE = (192, 320)
FORMATS = FILES


@pytest.fixture(scope='module')
def trained() -> TrainedModel:
    torch.manual_seed(0)
    return network('lite0', SIZE)


@pytest.fixture(scope='module')
def written(
    trained: TrainedModel, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """Files by end and format; those of one end are written together."""
    folder = tmp_path_factory.mktemp('files')
    ends: set[str] = set()

    def get(end: str, form: str) -> Path:
        if end not in ends:
            write_files(trained, folder, FORMATS, [end])
            ends.add(end)
        return folder / f'{end}{api.FORMATS[form]}'

    return get


@pytest.mark.timeout(600)
@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize('end', ENDS)
def test_files__equal_pytorch(
    trained: TrainedModel, written: Callable[[str, str], Path], end: str, form: str
) -> None:
    rows = list(examine([written(end, form)], trained, images(5), (1, 4), threads=1))
    assert [row.batch for row in rows] == [1, 4]
    assert [row.failure for row in rows] == ['', '']
    if ENDS[end]['end'] == 'postprocess':
        assert rows[0].difference.expected > 50
    assert rows[0].metadata.format == form
    assert all(len(row.cells()) == 13 for row in rows)


def read(path: Path, form: str) -> Any:
    """What a format's `set_min_score` takes."""
    if form == 'onnx':
        return import_module('onnx').load(path)
    if form == 'openvino':
        return core().read_model(path)
    return torch.export.load(path)


@pytest.mark.timeout(600)
@pytest.mark.parametrize('form', FORMATS)
def test_files__with_0_3_and_100_rows(
    trained: TrainedModel, written: Callable[[str, str], Path], form: str, tmp_path: Path
) -> None:
    path = written('hard', form)
    known = load_runtime(path).metadata
    hard = api.with_nms(trained, api.Options(nms='hard'))
    reference = api.Reference(hard, known, images(2))
    runner = import_module(f'effdet_plugin.export.{form}')
    for count in (0, 3, 100):
        limit = limit_of(reference, count) if count < 100 else -1.5
        built = read(path, form)
        runner.set_min_score(built, limit)
        changed = tmp_path / f'rows{count}{path.suffix}'
        runner.save(built, known, changed)
        found = load_runtime(changed)(reference.inputs[:1])
        assert found['num'].tolist() == [count]
        assert (found['labels'][0] >= 0).sum() == count
        expected = reference.run(1, limit)
        difference = check.compare(expected, found, known, max(SIZE), min_score=0.0)
        assert check.failures(difference, known) == ''


@pytest.mark.parametrize('size', [(2, 2), (2, 6), (5, 4), (3, 3), (1, 2), (24, 40)])
def test_with_plain_pooling__same_maxima(size: tuple[int, int]) -> None:
    onnx = import_module('onnx')
    x = torch.randn(2, 4, *size)
    pads = [size[0] % 2, size[1] % 2]
    expected = torch.nn.functional.max_pool2d(x, 3, 2, pads, ceil_mode=True).numpy()
    node = onnx.helper.make_node(
        'MaxPool', ['x'], ['y'], kernel_shape=[3, 3], strides=[2, 2], pads=pads * 2, ceil_mode=1
    )
    ends = [onnx.helper.make_tensor_value_info(name, 1, ['b', 4, 'h', 'w']) for name in ('x', 'y')]
    graph = onnx.helper.make_graph([node], 'pool', ends[:1], ends[1:])
    opsets = [onnx.helper.make_opsetid('', 18)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)
    content = with_plain_pooling(model).SerializeToString()
    session = import_module('onnxruntime').InferenceSession(content)
    assert np.array_equal(session.run(None, {'x': x.numpy()})[0], expected)
    f32 = {'INFERENCE_PRECISION_HINT': 'f32'}
    compiled = core().compile_model(core().read_model(content, b''), 'CPU', f32)
    assert np.array_equal(compiled({'x': x.numpy()})[0], expected)


def use_two(path: Path) -> None:
    """Load a file twice, drop both in their order, and let a process end."""
    first, second = load_runtime(path), load_runtime(path)
    del first
    del second
    signal.signal(signal.SIGCHLD, lambda *_: None)  # as torch's DataLoader sets one
    subprocess.run(['true'], check=True)


def test_openvino__signals_after_two_detectors(written: Callable[[str, str], Path]) -> None:
    """On CPUs with AMX it ended the process, with a Core for each."""
    assert in_child(use_two, written('raw', 'openvino')) == 0


@pytest.mark.timeout(600)
def test_files__of_any_size(trained: TrainedModel, tmp_path: Path) -> None:
    options = api.Options(dynamic=True)
    for path in write_files(trained, tmp_path, FORMATS, ['raw'], options):
        runtime = load_runtime(path)
        known = runtime.metadata
        assert known.image_size is None
        for size in ((256, 256), (128, 384)):
            reference = api.Reference(trained, known, images(2))
            reference.inputs = np.ascontiguousarray(
                np.random.default_rng(0).normal(size=(2, 3, *size)), np.float32
            )
            reference.feeds = list(reference.inputs)
            difference = reference.compare(runtime, 2, -1.5)
            assert check.failures(difference, known) == '', (path.name, size)
    sample = Detector(None, tmp_path / 'raw.onnx', image_size='384x256')(images(1)[0])[0]
    assert len(sample.pred_instances.scores) > 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize('form', ['onnx', 'openvino'])
def test_export__resize_off_by_one(
    trained: TrainedModel,
    written: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    form: str,
) -> None:
    model = read(written('hard', 'onnx'), 'onnx')
    modes = [a for n in model.graph.node if n.op_type == 'Resize' for a in n.attribute]
    modes = [attribute for attribute in modes if attribute.name == 'nearest_mode']
    assert modes
    for attribute in modes:
        attribute.s = b'ceil'
    monkeypatch.setattr(api, 'program_of', lambda *_: None)
    monkeypatch.setattr('effdet_plugin.export.onnx.build', lambda _: model)
    out = tmp_path / f'm{api.FORMATS[form]}'
    with pytest.raises(CheckpointError, match='not written: differs from PyTorch'):
        api.export(trained, out, api.Options(format=form, nms='hard'))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('form', FORMATS)
def test_export__nms_returns_padding(
    trained: TrainedModel,
    written: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    form: str,
) -> None:
    built = read(written('hard', form), form)
    runner = import_module(f'effdet_plugin.export.{form}')
    kind = type(runner.load(written('hard', form)))
    run = kind.__call__

    def wrong(self: Any, inputs: np.ndarray) -> dict[str, np.ndarray]:
        found = {name: array.copy() for name, array in run(self, inputs).items()}
        found['num'][:] = found['scores'].shape[1]
        return found

    monkeypatch.setattr(api, 'program_of', lambda *_: None)
    monkeypatch.setattr(runner, 'build', lambda _: built)
    monkeypatch.setattr(kind, '__call__', wrong)
    with pytest.raises(CheckpointError, match='padding among them'):
        api.export(
            trained, tmp_path / f'm{api.FORMATS[form]}', api.Options(format=form, nms='hard')
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('form', FORMATS)
def test_detector__a_cut_file(
    written: Callable[[str, str], Path], tmp_path: Path, form: str
) -> None:
    path = written('hard', form)
    files = [path, path.with_suffix('.bin')] if form == 'openvino' else [path]
    for cut in files:
        content = cut.read_bytes()
        for file in files:
            (tmp_path / file.name).write_bytes(file.read_bytes())
        # The last byte of an .xml is only a line break.
        for place in np.linspace(0, len(content) - 2, 10).astype(int):
            (tmp_path / cut.name).write_bytes(content[:place])
            refused(tmp_path / path.name)


def refused(path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        Detector(path)
    said = str(caught.value)
    assert said.startswith(str(path.with_suffix('')))
    assert '\n' not in said
    assert re.search(r'[a-z]', said)


@pytest.mark.parametrize('form', FORMATS)
def test_detector__foreign_and_renamed_files(
    written: Callable[[str, str], Path], tmp_path: Path, form: str
) -> None:
    suffix = api.FORMATS[form]
    for other in (api.FORMATS[name] for name in FORMATS):
        if other != suffix:
            renamed = tmp_path / f'renamed{suffix}'
            renamed.write_bytes(written('hard', form).with_suffix(other).read_bytes())
            refused(renamed)
    foreign = tmp_path / f'foreign{suffix}'
    module = torch.nn.Linear(2, 3)
    if form == 'pt2':
        torch.export.save(torch.export.export(module, (torch.zeros(4, 2),)), foreign)
    else:
        onnx = import_module('onnx')
        shape = [onnx.helper.make_tensor_value_info(n, 1, [1]) for n in ('images', 'boxes')]
        node = onnx.helper.make_node('Relu', ['images'], ['boxes'])
        graph = onnx.helper.make_graph([node], 'graph', shape[:1], shape[1:])
        model = onnx.helper.make_model(graph)
        onnx.save(model, tmp_path / 'foreign.onnx')
        if form == 'openvino':
            ov = import_module('openvino')
            ov.save_model(core().read_model(tmp_path / 'foreign.onnx'), foreign)
    refused(foreign)
    text = tmp_path / f'text{suffix}'
    text.write_text('no file of a runtime\n')
    refused(text)
