"""``tools/test.py --tiles``: tiles through a whole evaluation, beside the detector's."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from effdet_plugin.config import load
from effdet_plugin.inference import TTA, Detector, Tiles
from effdet_plugin.training import TestSettings, evaluate
from support import REPOSITORY

CONFIG = REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py'


@pytest.mark.parametrize('tta', [TTA(scales=(), flip=False)])
def test_evaluate__finds_what_the_detector_finds(
    options: dict[str, Any], tmp_path: Path, tta: TTA | None
) -> None:
    tiles = Tiles(grid=(1, 2), overlap=0.25)
    config = load(CONFIG, image_size=128, options=options)
    detector = Detector(config, 'none', tta=tta, tiles=tiles, batch_size=3)
    weights, out = tmp_path / 'weights.pth', tmp_path / 'results.json'
    torch.save({'state_dict': detector.model.state_dict()}, weights)
    settings = TestSettings(
        CONFIG, str(weights), image_size=128, cfg_options=options, out=out, tta=tta, tiles=tiles
    )
    assert evaluate(settings)['coco/images'] == 3
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
