"""``tools/test.py --tta``: several views through a whole evaluation."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from effdet_plugin.config import load
from effdet_plugin.inference import TTA, Detector
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


def test_evaluate__finds_what_the_detector_finds(options: Options, tmp_path: Path) -> None:
    """Detector uses the same TTA; it only clips the boxes to the image in addition."""
    tta = TTA(scales=(0.5,), merge='wbf')
    detector = Detector(load(CONFIG, image_size=128, options=options), 'none', tta=tta)
    weights, out = tmp_path / 'weights.pth', tmp_path / 'results.json'
    torch.save({'state_dict': detector.model.state_dict()}, weights)
    settings = TestSettings(CONFIG, str(weights), image_size=128, cfg_options=options, out=out)
    evaluate(replace(settings, tta=tta))
    results = json.loads(out.read_text())
    for image_id in (10, 11, 12):
        path = Path(options['test_dataloader.dataset.dataset.data_prefix.img']) / f'{image_id}.png'
        [sample] = detector(path)
        own = [result for result in results if result['image_id'] == image_id]
        boxes = torch.tensor([result['bbox'] for result in own])
        boxes[:, 2:] += boxes[:, :2]
        boxes = boxes.clamp(min=0).minimum(torch.tensor([64.0, 48.0, 64.0, 48.0]))
        is_inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
        scores = torch.tensor([result['score'] for result in own])[is_inside]
        torch.testing.assert_close(
            sample.pred_instances.bboxes, boxes[is_inside], atol=1e-3, rtol=0
        )
        torch.testing.assert_close(sample.pred_instances.scores, scores)
