"""Every file of ``configs/mix``: it builds, trains on one real batch, and finds something."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from effdet_plugin.config import load
from support import REPOSITORY

Batch = dict[str, list[Any]]
CONFIGS = sorted((REPOSITORY / 'configs' / 'mix').glob('*.py'))
STEPS = 20
# Our RoIAlign is slow: few proposals, few of them sampled.
FEW_ROIS: dict[str, Any] = {
    'model.train_cfg.rpn_proposal': {'nms_pre': 100, 'max_per_img': 30},
    'model.train_cfg.rcnn.sampler.num': 16,
    'model.test_cfg.rpn': {'nms_pre': 100, 'max_per_img': 30},
    'model.test_cfg.rcnn.score_thr': 0.0,
}


def load_small(path: Path) -> Config:
    cfg = load(path, options=FEW_ROIS if 'rcnn' in path.stem else None)
    if 'score_thr' in cfg.model.get('test_cfg', {}):
        cfg.model.test_cfg.score_thr = 0.0  # 20 steps make no detector that is sure of itself
    cfg.model.backbone.init_cfg = None  # nothing is downloaded
    cfg.model.backbone.pop('pretrained', None)
    return cfg


def build(cfg: Config) -> nn.Module:
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def test_mix_has_what_is_promised() -> None:
    names = {path.stem.removesuffix('_coco') for path in CONFIGS}
    assert {name.split('_')[0] for name in names if name.endswith('bifpn')} == {
        'retinanet', 'fcos', 'atss', 'gfl', 'rtmdet-tiny', 'faster-rcnn', 'mask-rcnn'
    }  # fmt: skip
    assert {
        'retinanet_efficientnet-b0_fpn',
        'efficientdet-head_r18_nasfpn',
        'efficientdet-head_r18_pafpn',
        'retinanet_r18_fpn_efficientdet-losses',
        'retinanet_r18_fpn_efficientdet-assigner',
        'retinanet_r18_fpn_soft-nms',
    } <= names


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
@pytest.mark.timeout(600)
def test_mix__trains_on_one_batch_and_predicts(path: Path, batch: Callable[[bool], Batch]) -> None:
    cfg = load_small(path)
    model = build(cfg).train()
    cfg.optim_wrapper.optimizer.lr *= 0.25  # the rates of the configs are for batches of 16 or more
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    masks = 'mask' in path.stem
    losses = [model.train_step(batch(masks), optimizer)['loss'].item() for _ in range(STEPS)]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    found = model.eval().val_step(batch(masks))
    assert len(found) == 2
    for sample in found:
        boxes, scores = sample.pred_instances.bboxes, sample.pred_instances.scores
        assert torch.isfinite(boxes).all()
        assert (scores.diff() <= 0).all()
    assert sum(len(sample.pred_instances) for sample in found) > 0


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_mix__is_one_change_in_few_lines(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 25
    content = runpy.run_path(str(path))
    assert {name for name in content if not name.startswith('__')} == {'_base_', 'model'}
    types = set(re.findall(r"\btype='(\w+)'", text)) - {'BN'}
    assert len(types) == (2 if 'losses' in path.stem else 1)


def test_mix__faster_rcnn_has_four_inputs_and_five_outputs() -> None:
    neck = build(load_small(REPOSITORY / 'configs/mix/faster-rcnn_r18_bifpn_coco.py')).neck
    maps = [
        torch.rand(1, c, s, s) for c, s in zip((64, 128, 256, 512), (32, 16, 8, 4), strict=True)
    ]
    shapes = [tuple(x.shape) for x in neck.eval()(maps)]
    assert shapes == [(1, 256, s, s) for s in (32, 16, 8, 4, 2)]
