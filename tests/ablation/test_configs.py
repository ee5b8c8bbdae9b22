"""Every file of ``configs/ablation``: short, complete, and it builds, trains and predicts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from effdet_plugin.config import load
from support import REPOSITORY

CONFIGS = sorted((REPOSITORY / 'configs' / 'ablation').glob('*.py'))
SIZE = (128, 128)


def batch() -> dict[str, list[Any]]:
    pixels = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    samples = []
    for _ in pixels:
        sample = DetDataSample(
            metainfo=dict(img_shape=SIZE, ori_shape=SIZE, scale_factor=(1.0, 1.0))
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[10.0, 20, 60, 90], [50, 40, 120, 120]]),
            labels=torch.tensor([0, 1]),
        )
        samples.append(sample)
    return {'inputs': list(pixels), 'data_samples': samples}


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config__has_a_loss_with_gradients_and_predicts(path: Path) -> None:
    cfg = load(path, image_size=SIZE)
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model).train()
    losses = model(**model.data_preprocessor(batch(), True), mode='loss')
    sum(losses.values()).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert len(model.eval().val_step(batch())) == 2


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config__is_one_change_in_ten_lines(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 10
    assert lines[0].startswith('# ')


def test_configs__of_one_table_differ_in_the_neck_only() -> None:
    models = [load(path).model for path in CONFIGS if path.stem.startswith('table5')]
    for model in models:
        neck = model.pop('neck')
        assert (neck.type, neck.out_channels, neck.num_outs) == ('BiFPN', 160, 5)
    assert all(model == models[0] for model in models)
