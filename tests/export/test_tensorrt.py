"""The file for TensorRT: the plugin at its end, and all before it by ONNX Runtime."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from fake_runtime import metadata_of, small_config
from torch import nn

from effdet_plugin.errors import CheckpointError, ConfigError
from effdet_plugin.export import Metadata, load_runtime, tensorrt, tensorrt_check
from effdet_plugin.trained_model import TrainedModel

NMS = dict(method='hard', iou_thr=0.4, score_thr=0.1, max_per_img=5, class_wise=True)
SIZE = (8, 12)


def metadata(**changes: Any) -> Metadata:
    trained = TrainedModel(small_config((128, 128)), nn.Identity(), ('a', 'b'))  # type: ignore[arg-type]
    known = dict(format='tensorrt', end='postprocess', nms=NMS, image_size=SIZE, **changes)
    return metadata_of(trained, **known)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file whose boxes are constants and whose scores are the image's mean and its double."""
    onnx = pytest.importorskip('onnx', reason='onnx is not installed')
    pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    helper = onnx.helper
    boxes = np.array([[[0, 0, 4, 4], [0, 0, 4, 5], [6, 2, 11, 7]]], np.float32)
    values = {
        'fixed': boxes,
        'factors': np.array([[[0.5, 0.1], [0.4, 0.9], [0.05, 0.3]]], np.float32),
        'whole': np.array([1, 2, 3], np.int64), 'row': np.array([-1, 1, 1], np.int64),
    }  # fmt: skip
    nodes = [
        helper.make_node('ReduceMean', ['images', 'whole'], ['mean'], keepdims=1),
        helper.make_node('Reshape', ['mean', 'row'], ['level']),
        helper.make_node('Mul', ['level', 'factors'], ['scores']),
        helper.make_node('Mul', ['level', 'lead_f'], ['zero']),
        helper.make_node('Add', ['zero', 'fixed'], ['boxes']),
    ]
    values['lead_f'] = np.zeros((1, 1, 1), np.float32)
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        'g',
        [helper.make_tensor_value_info('images', kind, ['batch', 3, *SIZE])],
        [
            helper.make_tensor_value_info('boxes', kind, ['batch', 3, 4]),
            helper.make_tensor_value_info('scores', kind, ['batch', 3, 2]),
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    path = tmp_path / 'm.onnx'
    tensorrt.save(model, metadata(), path)
    return path


def test_file__ends_in_the_plugin_with_the_thresholds(file: Path) -> None:
    onnx = pytest.importorskip('onnx')
    model = onnx.load(file)
    onnx.checker.check_model(model)
    node = model.graph.node[-1]
    given = {x.name: onnx.helper.get_attribute_value(x) for x in node.attribute}
    assert (node.domain, node.op_type, list(node.input)) == (
        'TRT',
        tensorrt.PLUGIN,
        ['boxes', 'scores'],
    )
    assert given['iou_threshold'] == pytest.approx(0.4)
    assert given['score_threshold'] == pytest.approx(0.1)
    assert (given['max_output_boxes'], given['class_agnostic'], given['box_coding']) == (5, 0, 0)
    assert [x.name for x in model.graph.output] == list(tensorrt.PLUGIN_OUTPUTS)
    found = tensorrt.load(file)(np.ones((2, 3, *SIZE), np.float32))
    np.testing.assert_allclose(found['scores'][1], [[0.5, 0.1], [0.4, 0.9], [0.05, 0.3]], rtol=1e-6)
    assert found['boxes'].shape == (2, 3, 4)


def test_file__is_refused_as_a_model_in_one_line(file: Path) -> None:
    with pytest.raises(CheckpointError, match='is for TensorRT: build its engine') as caught:
        load_runtime(file)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('nms', 'said'), [({'method': 'gaussian'}, '--nms soft'), ({'clip': 'after'}, 'clip=after')]
)
def test_form__what_the_plugin_does_not_have_is_refused(nms: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tensorrt.checked_form(metadata_with({**NMS, **nms}))


def metadata_with(nms: dict[str, Any]) -> Metadata:
    return Metadata(**{**vars(metadata()), 'nms': nms})


def test_check__compares_the_answer_of_an_engine(file: Path, tmp_path: Path) -> None:
    images = tmp_path / 'images'
    images.mkdir()
    for n in range(2):  # normalised by 127 and 128: a mean of about 1
        cv2.imwrite(str(images / f'{n}.png'), np.full((*SIZE, 3), 255 - n, np.uint8))
    assert tensorrt_check.prepare(file, images, tmp_path) == f'2x3x{SIZE[0]}x{SIZE[1]}'
    assert (tmp_path / 'images.bin').stat().st_size == 2 * 3 * SIZE[0] * SIZE[1] * 4
    with np.load(tmp_path / 'expected.npz') as stored:
        expected = dict(stored)
    # Class 0: the second box overlaps the first; class 1: it is the best.
    assert expected['num'].tolist() == [3, 3]
    assert expected['labels'][0].tolist() == [1, 0, 1, -1, -1]
    arrays = [expected[name] for name in ('num', 'boxes', 'scores', 'labels')]

    def answer() -> Path:
        parts = [
            dict(name=name, dimensions='', values=array.ravel().tolist())
            for name, array in zip(tensorrt.PLUGIN_OUTPUTS, arrays, strict=True)
        ]
        (tmp_path / 'answer.json').write_text(json.dumps(parts))
        return tmp_path / 'answer.json'

    arrays[2][:, 3:] = 7.0  # what the plugin leaves behind the count
    assert '6 detections, 100.0% found again' in tensorrt_check.compare(file, answer(), tmp_path)
    arrays[3] = 1 - arrays[3]
    with pytest.raises(CheckpointError, match='differs from ONNX Runtime'):
        tensorrt_check.compare(file, answer(), tmp_path)
    (tmp_path / 'answer.json').write_text('[]')
    with pytest.raises(CheckpointError, match='no answer of trtexec'):
        tensorrt_check.compare(file, tmp_path / 'answer.json', tmp_path)


def test_after__is_hard_nms_of_all_pairs() -> None:
    boxes = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 4, 5]]]).numpy()
    scores = np.array([[[0.9, 0.0], [0.8, 0.7]]], np.float32)
    found = tensorrt_check.after({'boxes': boxes, 'scores': scores}, metadata())
    assert found['num'].tolist() == [2]
    np.testing.assert_allclose(found['scores'][0, :2], [0.9, 0.7])
