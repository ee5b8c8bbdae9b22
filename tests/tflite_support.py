"""What the tests of .tflite files share."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effdet_plugin.images import resize
from effdet_plugin.inference import Detector

CLASSES = ('Grüße', 'Öl, rot')
SIZE = (128, 192)
Files = dict[str, Path]
PACKAGES = ('litert_torch', 'ai_edge_litert', 'ai_edge_quantizer')
MISSING = [name for name in PACKAGES if find_spec(name) is None]
needs_packages = [
    pytest.mark.export,
    pytest.mark.skipif(bool(MISSING), reason=f'needs {", ".join(MISSING)}: the extra tflite'),
]


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
