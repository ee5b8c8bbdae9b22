"""Other networks than Lite0 in all runtimes: raw outputs, and a run with NMS, from one program."""

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from export_networks import NEEDS_RUNTIMES, images, network
from torch import Tensor
from torch.export import Dim

from effdet_plugin.export import check
from effdet_plugin.export.api import Options, metadata_of, with_nms
from effdet_plugin.export.images import Preparation
from effdet_plugin.export.metadata import OUTPUTS
from effdet_plugin.export.program import EndToEnd, Program, export_program, without_in_place
from effdet_plugin.models.fold import fold

pytestmark = NEEDS_RUNTIMES

NAMES = (*OUTPUTS['raw'], *OUTPUTS['postprocess'])


class Both(EndToEnd):
    """Raw outputs and detections at once."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        classes, boxes = self.head(self._features(images))
        logits = self.head.flatten(classes, self.head.num_classes)
        deltas = self.head.flatten(boxes, 4)
        size = self.image_size
        assert size is not None
        found = self.head.postprocessor(
            logits, deltas, self.anchors, size, self.level_sizes, self.head.bbox_coder.decode
        )
        return logits, deltas, *found


def runs(program: Program, inputs: Tensor) -> dict[str, list[Any]]:
    """The arrays of all runtimes."""
    onnx, openvino = (import_module(f'effdet_plugin.export.{n}') for n in ('onnx', 'openvino'))
    model = onnx.build(program)
    session = import_module('onnxruntime').InferenceSession(model.SerializeToString())
    compiled = openvino.core().compile_model(
        openvino.convert(model), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'}
    )
    found = compiled({'images': inputs.numpy()})
    with torch.no_grad():
        own = program.exported.module()(inputs)
    return {
        'onnx': session.run(list(NAMES), {'images': inputs.numpy()}),
        'openvino': [found[name] for name in NAMES],
        'pt2': [x.numpy() for x in own],
    }


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ('name', 'size', 'nms'),
    [('d0', (128, 128), 'soft'), ('d2', (128, 128), 'hard'), ('d7x', (384, 256), 'soft')],
)
def test_networks__in_all_runtimes(name: str, size: tuple[int, int], nms: str) -> None:
    trained = network(name, size)
    trained = with_nms(trained, Options(nms=nms))
    known = metadata_of(trained, Options())
    prepare = Preparation(trained.model, size, known.resize_dtype)
    inputs = torch.from_numpy(np.stack([prepare(image) for image in images(2)]))
    module = Both(without_in_place(fold(trained.model, size)), size, 'postprocess').eval()
    program = export_program(module, inputs, {0: Dim('batch', min=1, max=8)}, 'postprocess')
    program = program._replace(outputs=NAMES)
    with torch.no_grad():
        eager = Both(trained.model, size, 'postprocess').eval()(inputs)
    expected = dict(zip(NAMES, [x.numpy() for x in eager], strict=True))
    assert expected['num'].min() > 5
    raw = metadata_of(trained, Options(end='raw'))
    for runtime, arrays in runs(program, inputs).items():
        found = dict(zip(NAMES, arrays, strict=True))
        assert check.compare(expected, found, raw, max(size)).raw <= 1e-3, runtime
        whole = check.compare(expected, found, known, max(size))
        assert whole.expected > 0
        # Raw outputs of random weights differ by up to 1e-3 of their largest: so may the rest.
        assert whole.matched > 0.9, runtime
        assert whole.score < 1e-2, runtime
