"""TensorFlow Lite files: equal to PyTorch, read by MediaPipe Tasks, one line for each fault."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_runtime import metadata_of
from tflite_support import (
    CLASSES,
    MISSING,
    SIZE,
    Files,
    found_again,
    images,
    needs_packages,
    rows_of,
)
from torch import Tensor, nn

from effdet_plugin.config.embedded import embed
from effdet_plugin.errors import CheckpointError, ConfigError, InstallError, UserError
from effdet_plugin.export import load_runtime, tflite, tflite_graph, tflite_metadata
from effdet_plugin.export.api import Options
from effdet_plugin.export.extras import need
from effdet_plugin.export.tflite_quant import quantized
from effdet_plugin.inference import Detector
from effdet_plugin.trained_model import TrainedModel


def of_operator(trained: TrainedModel) -> TrainedModel:
    from effdet_plugin.export.api import with_nms

    return with_nms(trained, Options('tflite'))


class TestFiles:
    pytestmark = needs_packages

    def test_detections__are_pytorchs_with_any_number_of_threads(
        self, trained: TrainedModel, files: Files, tmp_path: Path
    ) -> None:
        own = of_operator(trained)
        path = tmp_path / 'own.pth'
        meta = {'dataset_meta': {'classes': CLASSES}, 'config': embed(own.config)}
        torch.save({'state_dict': own.model.state_dict(), 'meta': meta}, path)
        expected = rows_of(Detector(path, device='cpu'), images())
        assert min(len(rows) for rows in expected) > 10
        for threads in (1, 2, 4):
            detector = Detector(files['postprocess_fp32'], threads=threads)
            assert detector.classes == CLASSES
            for one, other in zip(expected, rows_of(detector, images()), strict=True):
                assert len(one) == len(other)
                assert found_again(one, other, 1e-4 * max(SIZE), 1e-3) >= 0.99

    def test_raw__logits_and_deltas(self, trained: TrainedModel, files: Files) -> None:
        runtime = load_runtime(files['raw_fp32'])
        batch = np.random.default_rng(0).normal(size=(2, 3, *SIZE)).astype(np.float32)
        found = runtime(batch)
        model: Any = trained.model
        with torch.no_grad():
            classes, deltas = model.bbox_head(model.extract_feat(torch.from_numpy(batch)))
        expected = {
            'logits': model.bbox_head.flatten(classes, len(CLASSES)).numpy(),
            'deltas': model.bbox_head.flatten(deltas, 4).numpy(),
        }
        for name, array in expected.items():
            # A score of 1 - 2**-24 and above is 1: its logit is cut off.
            array = np.clip(array, -60, 16.6) if name == 'logits' else array
            assert np.abs(np.minimum(found[name], 16.6) - array).max() < 1e-3 * np.abs(array).max()

    @pytest.mark.parametrize(
        ('precision', 'share'), [('fp16', 0.6), ('dynamic', 0.4), ('int8', 0.4)]
    )
    def test_precision__smaller_and_loads(self, files: Files, precision: str, share: float) -> None:
        path, whole = files[f'postprocess_{precision}'], files['postprocess_fp32']
        known = load_runtime(path).metadata
        assert (known.precision, known.format) == (precision, 'tflite')
        assert path.stat().st_size < share * whole.stat().st_size
        assert Detector(path)(images(1))[0].pred_instances.bboxes.shape[1] == 4

    def test_int8__no_operator_in_float_but_the_last(self, files: Files) -> None:
        path = files['postprocess_int8']
        left = tflite_graph.float_operators(tflite_graph.unpacked(path.read_bytes()))
        assert dict(left) == {tflite_graph.DETECTION_OP: 1}
        assert (
            f'left in float: 1 {tflite_graph.DETECTION_OP}' in path.with_suffix('.log').read_text()
        )
        litert = need('ai_edge_litert.interpreter', 'tflite')
        (detail,) = litert.Interpreter(str(path)).get_input_details()
        assert (detail['dtype'], detail['quantization']) == (np.uint8, (1 / 128, 127))

    def test_what_is_said(self, files: Files) -> None:
        text = files['postprocess_fp32'].with_suffix('.log').read_text()
        assert 'MediaPipe Tasks will stretch images to 192x128' in text
        labels = files['postprocess_fp32'].with_name('labels.txt')
        assert labels.read_text(encoding='utf-8') == 'Grüße\nÖl, rot\n'

    @pytest.mark.parametrize('tenth', range(10))
    def test_cut__one_line(self, files: Files, tmp_path: Path, tenth: int) -> None:
        content = files['postprocess_fp32'].read_bytes()
        path = tmp_path / 'cut.tflite'
        path.write_bytes(content[: len(content) * tenth // 10 + 4 * tenth])
        with pytest.raises(CheckpointError, match=r'cut\.tflite: .*(damaged|cut)') as caught:
            load_runtime(path)
        assert len(str(caught.value).splitlines()) == 1

    def test_foreign__one_line(self, files: Files, tmp_path: Path) -> None:
        path = tmp_path / 'theirs.tflite'
        model = tflite_graph.unpacked(files['postprocess_fp32'].read_bytes())
        model.metadata = []
        path.write_bytes(tflite_metadata.with_labels(tflite_graph.packed(model), CLASSES))
        with pytest.raises(CheckpointError, match=r'theirs\.tflite: has no metadata of'):
            load_runtime(path)

    def test_another_networks_metadata__one_line(self, files: Files, tmp_path: Path) -> None:
        content = files['postprocess_fp32'].read_bytes()
        known = replace(load_runtime(files['postprocess_fp32']).metadata, image_size=(256, 256))
        model = tflite_graph.unpacked(content)
        tflite_graph.set_metadata(model, 'effdet_plugin', known.to_json().encode())
        path = tmp_path / 'mixed.tflite'
        path.write_bytes(tflite_metadata.with_labels(tflite_graph.packed(model), CLASSES))
        with pytest.raises(CheckpointError, match='not those of its metadata'):
            load_runtime(path)


class Tiny(nn.Module):
    """Maps and weights as after a few steps: tiny beside the bias of the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        nn.init.normal_(self.first.weight, std=1e-5)
        nn.init.zeros_(self.first.bias)
        nn.init.normal_(self.last.weight, std=1e-3)
        nn.init.constant_(self.last.bias, -4.6)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.first(images.permute(0, 3, 1, 2)))


@pytest.mark.export
@pytest.mark.skipif(bool(MISSING), reason=f'needs {", ".join(MISSING)}: the extra tflite')
def test_int8__a_bias_of_more_than_32_bits(trained: TrainedModel) -> None:
    known = metadata_of(trained, format='tflite', precision='int8')
    pixels = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
    content = quantized(tflite.converted(Tiny(), (16, 16)), known, pixels)
    interpreter = need('ai_edge_litert.interpreter', 'tflite').Interpreter(model_content=content)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(taken['index'], np.zeros(taken['shape'], taken['dtype']))
    interpreter.invoke()
    assert np.abs(interpreter.get_tensor(given['index']) + 4.6).max() < 0.05


def test_labels__a_line_for_each_class(tmp_path: Path) -> None:
    assert tflite_metadata.labels_text(('a', 'b\nc', 'Öl')) == 'a\nb c\nÖl\n'
    file = tmp_path / 'one.tflite'
    assert tflite.write_labels(file, ('a', 'b')) == tmp_path / 'labels.txt'
    assert tflite.write_labels(file, ('a', 'b')) == tmp_path / 'labels.txt'
    # Those of another file are left alone.
    assert tflite.write_labels(file, ('a', 'c')) == tmp_path / 'one_labels.txt'
    assert (tmp_path / 'labels.txt').read_text() == 'a\nb\n'


def test_labels__at_the_end_of_a_file() -> None:
    content = tflite_metadata.with_labels(b'a model', [f'class {n}' for n in range(90)])
    assert content.startswith(b'a model')
    assert tflite_metadata.labels_of(content)[89] == 'class 89'
    for damaged in (content[:-1], content[:100], b'a model'):
        with pytest.raises(ValueError, match=r'labels\.txt'):
            tflite_metadata.labels_of(damaged)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (Options('tflite', 'decoded'), 'take postprocess or raw'),
        (Options('tflite', 'raw', dynamic=True), 'has one size'),
        (Options('tflite', nms='soft'), 'hard NMS only'),
        (Options('onnx', precision='dynamic'), 'one of onnx of fp32, fp16, int8'),
        (Options('tflite', precision='int4'), 'fp32, fp16, dynamic, int8'),
    ],
)
def test_options__what_cannot_be(options: Options, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        options.check()


def test_post_processing__is_the_operators(trained: TrainedModel) -> None:
    own = of_operator(trained).config.model.bbox_head.postprocessor
    assert {name: own[name] for name in tflite.NMS} == tflite.NMS
    assert own.score_thr == tflite.SCORE_THR
    asked = Options('tflite', score_thr=0.3, iou_thr=0.4, max_per_img=25)
    from effdet_plugin.export.api import with_nms

    node = with_nms(trained, asked).config.model.bbox_head.postprocessor
    assert (node.score_thr, node.iou_thr, node.max_per_img) == (0.3, 0.4, 25)


def test_network__box_codes_in_the_operators_order(trained: TrainedModel) -> None:
    known = metadata_of(trained, format='tflite')
    batch = torch.rand(1, 3, *SIZE)
    model: Any = trained.model
    for mean in (known.mean, (100.0, 110.0, 120.0)):  # of the graph's own, pixels come in
        network = tflite._Network(trained.model, replace(known, mean=mean)).eval()
        with torch.no_grad():
            classes, deltas = model.bbox_head(model.extract_feat(batch))
            scale, shift = torch.tensor(known.std), torch.tensor(mean)
            pixels = batch.permute(0, 2, 3, 1)
            codes, scores = network(pixels if mean == known.mean else pixels * scale + shift)
        expected = model.bbox_head.flatten(deltas, 4)[..., [1, 0, 3, 2]]
        torch.testing.assert_close(codes, expected, atol=1e-3 * float(expected.abs().max()), rtol=0)
        logits = model.bbox_head.flatten(classes, len(CLASSES))
        torch.testing.assert_close(scores, logits.sigmoid(), atol=1e-3, rtol=0)


def test_missing_packages__are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, 'ai_edge_litert.interpreter', None)
    path = tmp_path / 'm.tflite'
    path.write_bytes(b'\x1c\0\0\0TFL3' + bytes(64))
    with pytest.raises(
        InstallError, match=r"pip install 'litert-torch>=.*' 'ai-edge-litert.*torch=="
    ):
        load_runtime(path)


def test_renamed__one_line(tmp_path: Path) -> None:
    path = tmp_path / 'm.tflite'
    path.write_bytes(b'PK\x03\x04 a pth')
    with pytest.raises(UserError, match='the content of pt2, not that of its suffix'):
        load_runtime(path)
