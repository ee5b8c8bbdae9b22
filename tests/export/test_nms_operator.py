"""Hard NMS by an operator that takes each class apart: what the loop keeps."""

from importlib import import_module
from typing import Any

import pytest
import torch
from export_networks import NEEDS_RUNTIMES
from torch import Tensor, nn
from torch.export import Dim

from effdet_plugin.export.nms_operator import suppress_by_operator, translations
from effdet_plugin.ops.nms import suppress


def candidates(number: int, classes: int, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Clusters of boxes, so that much is suppressed; scores with ties, descending."""
    made = torch.Generator().manual_seed(number)
    centre = torch.randint(0, 6, (batch, number, 2), generator=made) * 40.0
    centre += torch.rand(centre.shape, generator=made) * 12
    sides = torch.rand(centre.shape, generator=made) * 20 + 20
    boxes = torch.cat([centre - sides / 2, centre + sides / 2], -1)
    scores = (torch.rand(batch, number, generator=made) * 50).round() / 50
    labels = torch.randint(0, classes, (batch, number), generator=made)
    return boxes, scores.sort(descending=True, stable=True)[0], labels


@pytest.mark.parametrize('score_thr', [float('-inf'), 0.0, 0.3])
@pytest.mark.parametrize('class_wise', [True, False])
@pytest.mark.parametrize('number', [5, 60, 400])
def test_operator__keeps_what_the_loop_keeps(
    number: int, class_wise: bool, score_thr: float
) -> None:
    boxes, scores, labels = candidates(number, 3)
    scores[1, number // 2 :] = -1.0  # padding
    rule = dict(iou_thr=0.4, score_thr=score_thr, max_per_img=20, class_wise=class_wise)
    expected = suppress(boxes, scores, labels, 'hard', **rule)  # type: ignore[arg-type]
    keep, kept = suppress_by_operator(boxes, scores, labels, 3, **rule)  # type: ignore[arg-type]
    assert torch.equal(kept, expected[1])
    assert torch.equal(keep, expected[0])
    found = suppress_by_operator(boxes, scores, labels, 3, is_sorted=True, **rule)  # type: ignore[arg-type]
    assert torch.equal(found[0], expected[0])


@pytest.mark.parametrize('number', [3, 400])
def test_operator__of_candidates_in_any_order(number: int) -> None:
    boxes, scores, labels = candidates(number, 3)
    order = torch.randperm(number, generator=torch.Generator().manual_seed(0))
    given = boxes[:, order], scores[:, order], labels[:, order]
    expected = suppress(*given, 'hard', iou_thr=0.4, score_thr=0.1, max_per_img=20)
    found = suppress_by_operator(*given, 3, 0.4, 0.1, 20, True)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def needs_runtimes(test: Any) -> Any:
    for mark in NEEDS_RUNTIMES:
        test = mark(test)
    return test


class Suppress(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return suppress_by_operator(boxes, scores, labels, 3, 0.4, 0.02, 50, True)


@pytest.fixture(scope='module')
def model() -> Any:
    """The operator as a graph of ONNX, for any number of candidates."""
    number = {1: Dim('number', min=2, max=9999)}
    program = torch.export.export(
        Suppress(), candidates(60, 3), dynamic_shapes=(number,) * 3, strict=False
    )
    made: Any = torch.onnx.export(
        program,
        (),
        dynamo=True,
        input_names=['boxes', 'scores', 'labels'],
        output_names=['keep', 'kept'],
        verbose=False,
        custom_translation_table=translations(),
    )
    return made.model_proto


@needs_runtimes
@pytest.mark.parametrize('number', [5, 60, 3000])
@pytest.mark.parametrize('runtime', ['onnx', 'openvino'])
def test_operator__ties_in_runtimes(model: Any, runtime: str, number: int) -> None:
    given = candidates(number, 3)
    order = torch.randperm(number, generator=torch.Generator().manual_seed(0))
    given = given[0][:, order], given[1][:, order], given[2][:, order]
    feed = {n: x.numpy() for n, x in zip(('boxes', 'scores', 'labels'), given, strict=True)}
    if runtime == 'onnx':
        session = import_module('onnxruntime').InferenceSession(model.SerializeToString())
        keep, kept = session.run(None, feed)
    else:
        openvino = import_module('effdet_plugin.export.openvino')
        compiled = openvino.core().compile_model(
            openvino.convert(model), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'}
        )
        found = compiled(feed)
        keep, kept = found['keep'], found['kept']
    expected = suppress(*given, 'hard', iou_thr=0.4, score_thr=0.02, max_per_img=50)
    # Of 3,000 candidates with 50 different scores nearly all have equals.
    assert (keep == expected[0].numpy()).all()
    assert (kept == expected[1].numpy()).all()


def test_operator__nothing_above_the_threshold() -> None:
    boxes, scores, labels = candidates(30, 2)
    keep, kept = suppress_by_operator(boxes, scores * 0, labels, 2, 0.5, 0.1, 10, True)
    assert (keep == 0).all()
    assert (kept == -1).all()
