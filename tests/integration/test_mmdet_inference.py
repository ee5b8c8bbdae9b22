"""mmdet's own inference takes our configs and checkpoints."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.registry import DATASETS, MODELS
from mmengine.registry import init_default_scope
from torch import Tensor

from effdet_plugin.config import load
from effdet_plugin.inference import Detector
from support import REPOSITORY

CONFIG = REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py'
IMAGE = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)
Api = Callable[[Path, Path], Callable[[], Tensor]]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Random weights of a known seed."""
    warnings.simplefilter('ignore')
    init_default_scope('mmdet')
    cfg = load(CONFIG)
    torch.manual_seed(1)
    meta = {'dataset_meta': {'classes': DATASETS.get('CocoDataset').METAINFO['classes']}}
    torch.save(
        {'state_dict': MODELS.build(cfg.model).state_dict(), 'meta': meta}, tmp_path / 'a.pth'
    )
    return tmp_path / 'a.pth'


@pytest.fixture
def smaller(tmp_path: Path) -> Path:
    """A child config of another size, not square."""
    path = tmp_path / 'smaller.py'
    path.write_text(
        f"_base_ = ['{CONFIG.as_posix()}']\n"
        'image_size = (128, 256)\n'
        'train_dataloader = dict(dataset=dict(image_size=image_size))\n'
        'val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))\n',
        encoding='utf-8',
    )
    return path


def by_det_inferencer(config: Path, checkpoint: Path) -> Callable[[], Tensor]:
    inferencer = DetInferencer(str(config), str(checkpoint), device='cpu', show_progress=False)
    return lambda: torch.tensor(inferencer(IMAGE, no_save_vis=True)['predictions'][0]['scores'])


def by_inference_detector(config: Path, checkpoint: Path) -> Callable[[], Tensor]:
    model = init_detector(str(config), str(checkpoint), device='cpu')
    return lambda: inference_detector(model, IMAGE).pred_instances.scores


APIS = [by_det_inferencer, by_inference_detector]


def assert_ours(scores: Tensor, config: Path, checkpoint: Path) -> None:
    """Our detector leaves out what lies outside of the image, and finds nothing else."""
    sample = Detector(config, checkpoint, device='cpu')([IMAGE[..., ::-1]])[0]
    ours = sample.pred_instances.scores
    assert 50 < len(ours) <= len(scores)
    nearest = (ours[:, None] - scores).abs().amin(1)
    assert float(nearest.max()) < 1e-6


@pytest.mark.parametrize('api', APIS)
def test_mmdet_inference__gives_our_detections(api: Api, checkpoint: Path) -> None:
    assert_ours(api(CONFIG, checkpoint)(), CONFIG, checkpoint)


@pytest.mark.parametrize('is_smaller_first', [True, False])
@pytest.mark.parametrize('api', APIS)
def test_mmdet_inference__each_model_has_its_own_size(
    api: Api,
    is_smaller_first: bool,
    checkpoint: Path,
    smaller: Path,
) -> None:
    configs = [smaller, CONFIG] if is_smaller_first else [CONFIG, smaller]
    detectors = [api(config, checkpoint) for config in configs]  # both, before either is used
    found = [detect() for detect in detectors]
    for config, scores in zip(configs, found, strict=True):
        assert_ours(scores, config, checkpoint)
    assert len(found[0]) != len(found[1]) or not torch.equal(*found)


def test_inference_detector__image_shape(checkpoint: Path) -> None:
    model = init_detector(str(CONFIG), str(checkpoint), device='cpu')
    sample = inference_detector(model, IMAGE)
    assert sample.metainfo['img_shape'] == (192, 320)


def test_init_cfg__loads_a_checkpoint_into_a_model(checkpoint: Path) -> None:
    cfg = load(CONFIG)
    cfg.model.backbone.pretrained = False
    cfg.model.init_cfg = {'type': 'Pretrained', 'checkpoint': str(checkpoint)}
    model = MODELS.build(cfg.model)
    model.init_weights()
    weights = torch.load(checkpoint, weights_only=True)['state_dict']
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
