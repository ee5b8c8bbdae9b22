"""Networks to export: small, with outputs that differ from place to place as trained ones do."""

import logging
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from effdet_plugin.config import load
from effdet_plugin.export.api import Reference
from effdet_plugin.export.images import Preparation, drawn
from effdet_plugin.trained_model import TrainedModel, load_trained

# PyTorch describes every step of an export to this logger. Only pytest reads it: thousands of
# records.
logging.getLogger('torch.__trace').handlers.clear()

HOW = 'runtimes are not installed: bash tools/run_tests.sh --export'


def missing(*packages: str) -> list[str]:
    """Those that are not installed; nothing is imported."""
    return [name for name in packages if find_spec(name) is None]


# Marks of tests that need the runtimes.
NEEDS_RUNTIMES = [
    pytest.mark.export,
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing('onnx', 'onnxscript', 'onnxruntime', 'openvino')), reason=HOW),
]


def network(name: str, size: tuple[int, int]) -> TrainedModel:
    """A network of two classes with random weights, statistics of images, and spread scores.

    Args:
        name: Of a config, ``'lite0'``.
        size: (height, width) of its input.
    """
    options = {
        'model.bbox_head.num_classes': 2,
        'model.bbox_head.postprocessor.nms_pre': 1000,
        'model.backbone.pretrained': False,
        'test_dataloader.dataset.dataset.metainfo': {'classes': ('circle', 'square')},
    }
    trained = load_trained(load(f'{name}_coco', image_size=size, options=options), 'none', 'cpu')
    model: Any = trained.model
    prepare = Preparation(model, size, 'float32')
    batch = torch.from_numpy(np.stack([prepare(image) for image in images(4)]))
    for norm in (m for m in model.modules() if isinstance(m, _BatchNorm)):
        norm.momentum = 1.0
    model.train()
    with torch.no_grad():
        model(batch, mode='tensor')
        model.eval()
        spread(model, batch)
    return trained


def spread(model: Any, batch: torch.Tensor) -> None:
    """Scale the last layers: logits of deviation 2 around -4, deltas of 0.1.

    Random weights amplify rounding a hundred times; small deltas keep boxes within the bounds.
    """
    found = model(batch, mode='tensor')
    for tower, maps, std, bias in zip(
        (model.bbox_head.cls_tower, model.bbox_head.box_tower), found, (2.0, 0.1), (-4.0, 0.0),
        strict=True,
    ):  # fmt: skip
        last = getattr(tower.predict, 'pointwise', tower.predict)
        values = torch.cat([x.flatten() for x in maps])
        last.weight *= std / values.std()
        last.bias.fill_(bias)


def images(number: int) -> list[Any]:
    """Drawn images of several sizes, RGB."""
    sizes = [(240, 320), (320, 240), (200, 400)]
    return [drawn(seed, sizes[seed % len(sizes)]) for seed in range(number)]


def limit_of(reference: Reference, rows: int) -> float:
    """A least score of candidates that leaves this many detections of the first image.

    Args:
        reference: With hard NMS, which changes no score.
        rows: Fewer than there are.
    """
    scores = reference.run(1)['scores'][0]
    if rows == 0:
        return float(scores[0]) + 1e-3
    return float(scores[rows - 1] + scores[rows]) / 2
