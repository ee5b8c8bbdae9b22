"""What the tests of .tflite files share."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effdet_plugin.export import load_runtime
from effdet_plugin.images import resize
from effdet_plugin.inference import Detector
from support import REPOSITORY

CLASSES = ('Grüße', 'Öl, rot')
SIZE = (128, 192)
Files = dict[str, Path]
PACKAGES = ('litert_torch', 'ai_edge_litert', 'ai_edge_quantizer')
MISSING = [name for name in PACKAGES if find_spec(name) is None]
needs_packages = [
    pytest.mark.export,
    pytest.mark.skipif(bool(MISSING), reason=f'needs {", ".join(MISSING)}: the extra tflite'),
]
MEDIAPIPE = Path(os.environ.get('EFFDET_MEDIAPIPE', REPOSITORY / '.venv-mediapipe')) / 'bin/python'
needs_mediapipe = pytest.mark.skipif(
    not MEDIAPIPE.exists(), reason='needs MediaPipe: bash tools/setup.sh --mediapipe'
)


def images(count: int = 4, size: tuple[int, int] = (96, 150)) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (count, 6, 8, 3), np.uint8)
    return [resize(image, *size, 'stretch') for image in coarse]


def found_again(one: Any, other: Any, px: float, score: float) -> float:
    """Share of detections that have a partner of the same class."""
    left = list(other)
    hits = 0
    for box, value, name in one:
        for candidate in left:
            gap = np.abs(np.array(box) - np.array(candidate[0])).max()
            if candidate[2] == name and gap <= px and abs(candidate[1] - value) <= score:
                left.remove(candidate)
                hits += 1
                break
    return hits / len(one) if one else 1.0


def as_mediapipe(path: Path, batch: list[np.ndarray]) -> list[list[Any]]:
    """A file's detections in MediaPipe's form: ``([x, y, width, height], score, name)``.

    It does not clip boxes: an origin outside is moved to the edge, a side longer than the image's
    is cut to that, the other edges move along. It also drops what is after the decimal point.
    """
    runtime = load_runtime(path, threads=1)
    known = runtime.metadata
    assert known.image_size is not None
    found = []
    for image in batch:
        sampled = resize(image, *known.image_size, 'stretch_mediapipe').astype(np.float32)
        normalised = (sampled - known.mean) / np.array(known.std)
        outputs = runtime(normalised.astype(np.float32).transpose(2, 0, 1)[None])
        sides = np.array(image.shape[1::-1])
        scale = np.tile(sides / known.image_size[::-1], 2)
        rows = []
        for row in range(outputs['num'][0]):
            box = outputs['boxes'][0, row] * scale
            size = np.minimum(box[2:] - box[:2], sides)
            name = known.classes[outputs['labels'][0, row]]
            corner = np.maximum(box[:2], 0)
            rows.append(([*corner, *size], float(outputs['scores'][0, row]), name))
        found.append(rows)
    return found


def rows_of(detector: Detector, batch: list[np.ndarray]) -> list[list[Any]]:
    return [
        [
            (box.tolist(), float(score), detector.classes[label])
            for box, score, label in zip(
                s.pred_instances.bboxes,
                s.pred_instances.scores,
                s.pred_instances.labels,
                strict=True,
            )
        ]
        for s in detector(batch)
    ]
