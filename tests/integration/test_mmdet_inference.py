"""mmdet's own ways to a picture take our configs and checkpoints."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.registry import DATASETS, MODELS
from mmengine.registry import init_default_scope
from torch import Tensor

from effdet_plugin.config import load
from effdet_plugin.datasets import transforms
from effdet_plugin.inference import Detector
from support import REPOSITORY

CONFIG = REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py'
PICTURE = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights of a known seed; no data set of another test is remembered."""
    monkeypatch.setattr(transforms, '_known_sizes', set())
    warnings.simplefilter('ignore')
    init_default_scope('mmdet')
    cfg = load(CONFIG)
    torch.manual_seed(1)
    meta = {'dataset_meta': {'classes': DATASETS.get('CocoDataset').METAINFO['classes']}}
    torch.save(
        {'state_dict': MODELS.build(cfg.model).state_dict(), 'meta': meta}, tmp_path / 'a.pth'
    )
    return tmp_path / 'a.pth'


def assert_ours(scores: Tensor, checkpoint: Path) -> None:
    """Our detector leaves out what lies outside of the picture, and finds nothing else."""
    sample = Detector(CONFIG, checkpoint, device='cpu')([PICTURE[..., ::-1]])[0]
    ours = sample.pred_instances.scores
    assert 50 < len(ours) <= len(scores)
    nearest = (ours[:, None] - scores).abs().amin(1)
    assert float(nearest.max()) < 1e-6


def test_det_inferencer__gives_our_detections(checkpoint: Path) -> None:
    inferencer = DetInferencer(str(CONFIG), str(checkpoint), device='cpu', show_progress=False)
    found = inferencer(PICTURE, no_save_vis=True)['predictions'][0]['scores']
    assert_ours(torch.tensor(found), checkpoint)


def test_inference_detector__gives_our_detections(checkpoint: Path) -> None:
    model = init_detector(str(CONFIG), str(checkpoint), device='cpu')
    sample = inference_detector(model, PICTURE)
    assert_ours(sample.pred_instances.scores, checkpoint)
    assert sample.metainfo['img_shape'] == (192, 320)


def test_init_cfg__loads_a_checkpoint_into_a_model(checkpoint: Path) -> None:
    cfg = load(CONFIG)
    cfg.model.backbone.pretrained = False
    cfg.model.init_cfg = {'type': 'Pretrained', 'checkpoint': str(checkpoint)}
    model = MODELS.build(cfg.model)
    model.init_weights()
    weights = torch.load(checkpoint, weights_only=True)['state_dict']
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
