"""The one program that all formats share: a folded detector from images to arrays, exported once.

Network and post-processing are the modules that `predict` runs. One value is added: the least score
of a candidate, which is below all scores in a finished file. While a file is checked it is raised,
so that rows of padding are left, which a wrong converter may return as detections.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from effdet_plugin.errors import ConfigError
from effdet_plugin.export.metadata import MAX_SIDE, OUTPUTS, SIZE_STEP
from effdet_plugin.ops.nms_cpu import NO_SCORE

INPUT_NAME = 'images'
MIN_SCORE = 'min_score'  # name of the value
NO_LIMIT = -1.5  # no score is below; a number of its own: exporters merge equal constants
MAX_BATCH = 1024
_EXAMPLE_BATCH = 2  # a batch of 1 would become a constant
_EXAMPLE_SIZE = (256, 384)  # of a program for any size


class Program(NamedTuple):
    """An exported detector.

    Attributes:
        exported: What `torch.export` made.
        example: Images that it was made with.
        module: The same computation in eager PyTorch.
        outputs: Names of the arrays.
        shapes: Dynamic shape of the input.
    """

    exported: ExportedProgram
    example: Tensor
    module: nn.Module
    outputs: tuple[str, ...]
    shapes: tuple[dict[int, Any], ...]


class Form(NamedTuple):
    """In which form a file computes what `EndToEnd` does.

    Attributes:
        dtype: Of the network; post-processing is float32.
        pixels: What prepares pixels ``(B, h, w, 3)`` inside the file; None: it takes images that
            are prepared.
        nms: What suppresses in place of hard NMS's loop; see `suppress_by_operator`.
    """

    dtype: torch.dtype = torch.float32
    pixels: nn.Module | None = None
    nms: Callable[..., tuple[Tensor, Tensor]] | None = None


class EndToEnd(nn.Module):
    """A detector from normalised images to the arrays of an end.

    Args:
        model: A folded detector with an `EfficientDetHead`.
        image_size: (height, width) of the images; None: any multiple of `SIZE_STEP`.
        end: ``'postprocess'``, ``'decoded'`` or ``'raw'``.
        form: See `Form`; with another dtype than float32 the parts of the model are changed.

    Raises:
        ConfigError: Another head, or an end that needs the size.
    """

    def __init__(
        self,
        model: BaseModel,
        image_size: tuple[int, int] | None,
        end: str,
        form: Form = Form(),  # noqa: B008
    ) -> None:
        super().__init__()
        check_exportable(model)
        if image_size is None and end != 'raw':
            raise ConfigError(f'--dynamic-size: the anchors of {end} need a size; use --end raw')
        self.backbone, self.neck, self.head = model.backbone, model.neck, model.bbox_head
        self.image_size, self.end = image_size, end
        self.level_sizes: list[int] = []
        if image_size is not None:
            levels = self._anchors(image_size)
            self.level_sizes = [len(anchors) for anchors in levels]
            self.register_buffer('anchors', torch.cat(levels), persistent=True)
        self.pixels, self.dtype = form.pixels, form.dtype
        for part in (self.backbone, self.neck, self.head):
            part.to(form.dtype)
        if end == 'postprocess':
            self._limit_candidates(form.nms)

    anchors: Tensor
    min_score: Tensor

    def _limit_candidates(self, hard_nms: Callable[..., tuple[Tensor, Tensor]] | None) -> None:
        """Give a copy of the post-processor the least score of candidates, a buffer."""
        self.register_buffer(MIN_SCORE, torch.tensor(NO_LIMIT))
        self.head = copy.copy(self.head)
        self.head._modules = dict(self.head._modules)
        self.head.postprocessor = copy.copy(self.head.postprocessor)
        nms = self.head.postprocessor.nms
        if hard_nms is not None and nms.keywords['method'] == 'hard':
            given = {k: v for k, v in nms.keywords.items() if k not in ('method', 'sigma')}
            post = self.head.postprocessor
            given['is_sorted'] = post.nms_pre > 0 and post.candidates_per_level is None
            nms = partial(hard_nms, num_classes=self.head.num_classes, **given)

        def limited(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            kept: tuple[Tensor, Tensor] = nms(
                boxes, torch.where(scores > self.min_score, scores, NO_SCORE), labels
            )
            return kept

        self.head.postprocessor.nms = limited

    @torch.no_grad()
    def _anchors(self, image_size: tuple[int, int]) -> list[Tensor]:
        place = next(self.backbone.parameters())
        maps = self.head(self._features(place.new_zeros((1, 3, *image_size))))[0]
        levels: list[Tensor] = self.head.anchors(maps, image_size)
        return levels

    def _features(self, images: Tensor) -> Any:
        return self.neck(self.backbone(images))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` float32, normalised, or pixels -> the arrays of `OUTPUTS`."""
        if self.pixels is not None:
            images = self.pixels(images)
        classes, boxes = self.head(self._features(images.to(self.dtype)))
        logits = self.head.flatten(classes, self.head.num_classes).float()
        deltas = self.head.flatten(boxes, 4).float()
        if self.end == 'raw':
            return logits, deltas
        decode = self.head.bbox_coder.decode
        if self.end == 'decoded':
            return decode(self.anchors, deltas), logits.sigmoid()
        assert self.image_size is not None
        return tuple(
            self.head.postprocessor(
                logits, deltas, self.anchors, self.image_size, self.level_sizes, decode
            )
        )


def without_in_place(model: nn.Module) -> nn.Module:
    """Let activations make new tensors, as ONNX does.

    PyTorch's ONNX exporter takes those in place apart into comparisons, which is most of its time.

    Args:
        model: Changed, and returned.
    """
    for module in model.modules():
        if getattr(module, 'inplace', False):
            module.inplace = False  # type: ignore[assignment]
    return model


def check_exportable(model: BaseModel) -> None:
    """Refuse heads without our post-processing.

    Raises:
        ConfigError: Names the head.
    """
    head = getattr(model, 'bbox_head', None)
    if not hasattr(head, 'postprocessor') or not hasattr(head, 'flatten'):
        kind = type(head or model).__name__
        raise ConfigError(
            f'bbox_head: {kind} cannot be exported; EfficientDetHead can, with any other parts'
        )


@torch.no_grad()
def export_program(module: nn.Module, example: Tensor, shapes: dict[int, Any], end: str) -> Program:
    """Export a module once for all formats.

    Args:
        module: In evaluation mode.
        example: Its input.
        shapes: Dynamic dimensions of the input.
        end: For the names of the outputs.
    """
    # The loop of NMS is compiled inside: one compiled for another export, with a fixed number of
    # candidates, cannot be compared with a number that only the image decides.
    torch.compiler.reset()
    exported = torch.export.export(module, (example,), dynamic_shapes=(shapes,), strict=False)
    return Program(exported, example, module, OUTPUTS[end], (shapes,))


def detector_program(
    model: BaseModel,
    image_size: tuple[int, int] | None,
    end: str,
    form: Form = Form(),  # noqa: B008
) -> Program:
    """Export a detector.

    Args:
        model: A folded detector.
        image_size: (height, width); None: any multiples of `SIZE_STEP`.
        end: See `EndToEnd`.
        form: Likewise.
    """
    module = EndToEnd(model, image_size, end, form).eval()
    shapes: dict[int, Any] = {0: Dim('batch', min=1, max=MAX_BATCH)}
    if form.pixels is not None:
        shapes |= {1: Dim('h', min=1, max=MAX_SIDE), 2: Dim('w', min=1, max=MAX_SIDE)}
        example = torch.zeros((_EXAMPLE_BATCH, *_EXAMPLE_SIZE, 3), dtype=torch.uint8)
        return export_program(module, example, shapes, end)
    if image_size is None:
        shapes[2] = SIZE_STEP * Dim('h', min=1, max=64)
        shapes[3] = SIZE_STEP * Dim('w', min=1, max=64)
    example = torch.zeros((_EXAMPLE_BATCH, 3, *(image_size or _EXAMPLE_SIZE)))
    return export_program(module, example, shapes, end)
