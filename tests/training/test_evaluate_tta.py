"""``tools/test.py --tta``: several views through the whole of an evaluation."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from effdet_plugin.inference import TTA
from effdet_plugin.models.detectors import EfficientDet
from effdet_plugin.training import TestSettings, evaluate
from support import REPOSITORY

CONFIG = REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py'
Options = dict[str, Any]


@pytest.mark.parametrize('merge', ['nms', 'wbf'])
def test_evaluate__several_views(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merge: str
) -> None:
    shapes: list[tuple[int, ...]] = []
    extract_feat = EfficientDet.extract_feat

    def note_shape(model: EfficientDet, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        shapes.append(tuple(images.shape[2:]))
        return extract_feat(model, images)

    monkeypatch.setattr(EfficientDet, 'extract_feat', note_shape)
    out = tmp_path / 'results.json'
    settings = TestSettings(CONFIG, 'none', image_size=128, cfg_options=options, out=out)
    metrics = evaluate(replace(settings, tta=TTA(scales=(0.5,), merge=merge)))
    assert set(shapes) == {(128, 128), (64, 64)}
    assert shapes.count((128, 128)) == shapes.count((64, 64)) >= 2  # as it is, and flipped
    assert metrics['coco/images'] == 3
    rows = json.loads(out.read_text())
    assert {row['image_id'] for row in rows} == {10, 11, 12}
    counts = [sum(row['image_id'] == image for row in rows) for image in (10, 11, 12)]
    assert max(counts) <= 100


def test_evaluate__one_view_is_no_other_evaluation(options: Options, tmp_path: Path) -> None:
    settings = TestSettings(CONFIG, 'none', image_size=128, cfg_options=options)
    files = [tmp_path / 'plain.json', tmp_path / 'merged.json']
    evaluate(replace(settings, out=files[0]))
    evaluate(replace(settings, out=files[1], tta=TTA(scales=(), flip=False)))
    plain, merged = (json.loads(path.read_text()) for path in files)
    kept = [(row['image_id'], row['category_id'], row['score']) for row in plain]
    assert {(r['image_id'], r['category_id'], r['score']) for r in merged} <= set(kept)
