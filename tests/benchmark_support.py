"""Settings of a measurement that takes seconds: Lite0 at 128 px with random weights."""

from typing import Any

import support
from effdet_plugin import benchmark

CONFIG = support.REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py'
OPTIONS = ['model.backbone.pretrained=False']
NEEDS_EFFDET = 'compares with effdet from PyPI: pip install effdet'


def settings(**changes: Any) -> benchmark.Settings:
    given: dict[str, Any] = {
        'models': ['none'],
        'config': CONFIG,
        'batches': [1],
        'rounds': 2,
        'device': 'cpu',
        'image_size': 128,
        'options': OPTIONS,
        'forms': ('eager', 'fast'),
        'nms': ('hard',),
    }
    return benchmark.Settings(**{**given, **changes})
