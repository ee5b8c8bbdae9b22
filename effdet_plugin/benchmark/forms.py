"""Forms of one network (eager, folded, compiled, ...) and exported files as calls to be timed."""

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModel
from numpy.typing import NDArray
from torch import Tensor

from effdet_plugin.benchmark.settings import Settings
from effdet_plugin.errors import ConfigError
from effdet_plugin.export.runtime import Runtime
from effdet_plugin.models.fold import fold
from effdet_plugin.models.postprocessor import DetectionPostProcessor
from effdet_plugin.trained_model import TrainedModel

Arrays = Mapping[str, NDArray[Any]]
RAW, WHOLE = 'raw', 'postprocess'
_DTYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16}


@dataclass
class Form:
    """A call to be timed.

    Attributes:
        name: For the table.
        run: From images to outputs: ``(B, 3, H, W)`` float32 normalised, on the device; for files a
            numpy array in the form that the file takes.
        arrays: From what ``run`` gives to named arrays, to compare.
        end: ``raw``, ``decoded`` or ``postprocess``; see `effdet_plugin.export.metadata.OUTPUTS`.
        is_exact: Computes in float32, so that a difference is an error.
        nms: Arguments of the post-processor of ``postprocess``.
        input: ``float`` or ``uint8``.
    """

    name: str
    run: Callable[[Any], Any]
    arrays: Callable[[Any], Arrays]
    end: str = RAW
    is_exact: bool = True
    nms: Mapping[str, Any] | None = None
    input: str = 'float'


def network_forms(trained: TrainedModel, size: tuple[int, int], settings: Settings) -> list[Form]:
    """Make the forms of a checkpoint's network, without post-processing.

    Args:
        trained: The network, on its device.
        size: (height, width) of its input.
        settings: ``forms`` names what is made.

    Raises:
        ConfigError: The network cannot be folded; a form of training.
    """
    if 'recompute' in settings.forms:
        raise ConfigError('--forms recompute: only training keeps maps; choose it with train')
    made: dict[str, Form] = {}
    for name in settings.forms:
        model = form_of(trained.model, name, size)
        call = torch.compile(_plain(model), dynamic=False) if name == 'compiled' else _plain(model)
        if name in _DTYPES:
            call = _autocast(call, next(model.parameters()).device.type, _DTYPES[name])
        made[name] = Form(
            name, call, lambda found: raw_arrays(trained.model, found), is_exact=name not in _DTYPES
        )
    return list(made.values())


def form_of(model: BaseModel, name: str, size: tuple[int, int]) -> BaseModel:
    """Return a copy of a detector in one of its forms, in evaluation mode.

    Args:
        model: Not changed.
        name: Of `effdet_plugin.benchmark.settings.FORMS`.
        size: (height, width) of the input.
    """
    if name in ('eager', 'channels_last'):
        formed = copy.deepcopy(model).eval()
    else:
        formed = fold(model, size)
    # The config may have set it already, or its opposite.
    is_last = name not in ('eager', 'folded')
    formed.channels_last = is_last
    formed.to(memory_format=torch.channels_last if is_last else torch.contiguous_format)
    return formed


def whole_form(model: BaseModel, name: str, nms: Mapping[str, Any]) -> Form:
    """Make a form of network and post-processing together.

    Args:
        model: A detector whose head is an `EfficientDetHead`.
        name: For the table.
        nms: Arguments of the `DetectionPostProcessor`.

    Raises:
        ConfigError: Another head.
    """
    head = model.bbox_head
    if not hasattr(head, 'postprocessor'):
        raise ConfigError(f'bbox_head: {type(head).__name__} has no post-processor that is ours')
    post = DetectionPostProcessor(**nms)
    network = _plain(model)

    def run(images: Tensor) -> Any:
        classes, boxes = network(images)
        size = (images.shape[-2], images.shape[-1])
        levels = head.anchors(classes, size)
        logits, deltas = head.flatten(classes, head.num_classes), head.flatten(boxes, 4)
        sizes = [len(level) for level in levels]
        return post(logits, deltas, torch.cat(levels), size, sizes, head.bbox_coder.decode)

    return Form(name, run, _detections, end=WHOLE, nms=nms)


def file_form(runtime: Runtime, name: str) -> Form:
    """Make a form of an exported file."""
    known = runtime.metadata
    nms = known.nms if known.end == WHOLE else None
    exact = known.precision == 'fp32'
    return Form(name, runtime, dict, known.end, exact, nms, known.input)


def raw_arrays(model: BaseModel, found: Any) -> Arrays:
    """Return a head's lists over the levels as arrays: logits ``(B, N, C)``, deltas ``(B, N, 4)``.

    Heads of other types: the values of each list in a row, ``(B, n)``.
    """
    classes, boxes = found
    head = model.bbox_head
    if hasattr(head, 'flatten'):
        pairs = {
            'logits': head.flatten(classes, head.num_classes),
            'deltas': head.flatten(boxes, 4),
        }
    else:
        pairs = {
            'logits': torch.cat([x.flatten(1) for x in classes], 1),
            'deltas': torch.cat([x.flatten(1) for x in boxes], 1),
        }
    return {key: value.float().cpu().numpy() for key, value in pairs.items()}


def difference(found: Arrays, expected: Arrays, end: str) -> float:
    """Return how far outputs are from those of the reference form.

    Args:
        found: Of the same images and end as ``expected``.
        expected: Of the reference form.
        end: Of both.

    Returns:
        ``raw`` and ``decoded``: largest difference relative to the largest value. ``postprocess``:
        share of the detections that have no partner of the same label, with corners within a
        thousandth of the largest coordinate and a score within 0.001.
    """
    if end == WHOLE:
        return _unmatched(found, expected)
    errors = []
    for key, values in expected.items():
        scale = np.abs(values).max() or 1.0
        error = float(np.abs(found[key] - values).max() / scale)
        errors.append(error if np.isfinite(error) else float('inf'))
    return max(errors)


def _unmatched(found: Arrays, expected: Arrays, tolerance: float = 1e-3) -> float:
    lost, rows = 0, 0
    for image, count in enumerate(expected['num']):
        kept = int(found['num'][image])
        boxes, labels = found['boxes'][image, :kept], found['labels'][image, :kept]
        scores, scale = found['scores'][image, :kept], max(1.0, np.abs(expected['boxes']).max())
        for row in range(int(count)):
            near = np.abs(boxes - expected['boxes'][image, row]).max(1) <= tolerance * scale
            same = labels == expected['labels'][image, row]
            close = np.abs(scores - expected['scores'][image, row]) <= tolerance
            lost += not (near & same & close).any()
        rows += max(int(count), kept)
        lost += max(0, kept - int(count))
    return lost / max(rows, 1)


def _plain(model: BaseModel) -> Callable[[Tensor], Any]:
    return lambda images: model(images, mode='tensor')


def _autocast(call: Callable[[Any], Any], device: str, dtype: torch.dtype) -> Callable[[Any], Any]:
    def run(images: Tensor) -> Any:
        with torch.autocast(device, dtype), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return call(images)

    return run


def _detections(found: Any) -> Arrays:
    return {key: value.float().cpu().numpy() for key, value in found._asdict().items()}
