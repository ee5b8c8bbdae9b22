"""Exports one after another in one process."""

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from effdet_plugin.export.program import export_program
from effdet_plugin.models.postprocessor import DetectionPostProcessor


class Post(nn.Module):
    """Post-processing alone, with scores in place of images."""

    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.post = DetectionPostProcessor(nms_pre=20, max_per_img=5, **settings)  # type: ignore[arg-type]
        corners = torch.arange(30.0)[:, None] + torch.tensor([0.0, 0.0, 2.0, 2.0])
        self.register_buffer('anchors', corners)

    anchors: Tensor

    def forward(self, logits: Tensor) -> tuple[Tensor, ...]:
        deltas = logits.new_zeros((logits.shape[0], 30, 4))
        return tuple(self.post(logits, deltas, self.anchors, (32, 32), [30]))


@pytest.mark.export
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_export_program__a_threshold_after_none() -> None:
    example = torch.linspace(-9, 3, 2 * 30 * 2).view(2, 30, 2)
    # Without a threshold the number of candidates is fixed, then it depends on the image.
    for settings in (dict(method='hard'), dict(method='gaussian', score_thr=0.05)):
        module = Post(**settings).eval()
        program = export_program(module, example, {0: Dim('batch', min=1, max=8)}, 'postprocess')
        for found, expected in zip(
            program.exported.module()(example), module(example), strict=True
        ):
            torch.testing.assert_close(found, expected)
