"""Views of a picture: flips come back, sizes are scaled, and one view changes nothing."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from effdet_plugin.config import load
from effdet_plugin.errors import ConfigError
from effdet_plugin.inference import TTA, Detector, TTADetector, apply_tta
from effdet_plugin.inference.tta import scaled, scaled_size
from support import REPOSITORY

LITE0 = REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py'


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def lite0(size: int = 128) -> Config:
    return load(LITE0, image_size=size)


def test_scaled_size__steps_of_64_and_the_own_size_exact() -> None:
    assert scaled_size((320, 500), 1) == (320, 500)
    assert scaled_size((320, 500), 1.25) == (384, 640)
    assert scaled_size((64, 64), 0.1) == (64, 64)


def test_scaled__of_mmdets_pipelines_too(tiny_config: Config) -> None:
    twice = scaled(tiny_config, 2)
    assert twice.test_dataloader.dataset.dataset.pipeline[1].scale == (192, 128)
    assert tiny_config.test_dataloader.dataset.dataset.pipeline[1].scale == (96, 64)


def test_apply__pipeline_of_views() -> None:
    init_default_scope('mmdet')
    cfg = lite0()
    assert apply_tta(cfg, TTA(scales=(0.5,), merge='wbf')) == dict(type='MergedViews', merge='wbf')
    steps = cfg.test_dataloader.dataset.pipeline
    prepare = Compose([step for step in steps if step['type'] != 'LoadImageFromFile'])
    for view in prepare.transforms[-1].subroutines:
        view.transforms = [t for t in view.transforms if 'Annotations' not in type(t).__name__]
    pixels = picture()
    made = prepare(
        dict(img=pixels, img_shape=(90, 120), ori_shape=(90, 120), img_id=1, img_path='')
    )
    sizes = [tuple(image.shape[-2:]) for image in made['inputs']]
    assert sizes == [(128, 128), (64, 64), (128, 128), (64, 64)]
    assert [s.metainfo['flip'] for s in made['data_samples']] == [False, False, True, True]
    plain, flipped = made['inputs'][0], made['inputs'][2]
    width = made['data_samples'][0].metainfo['img_shape'][1]
    torch.testing.assert_close(flipped[:, :, :width], plain[:, :, :width].flip(-1), atol=1, rtol=0)


def test_apply__needs_a_step_of_a_size() -> None:
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=[dict(type='PackDetInputs')]))))
    with pytest.raises(ConfigError, match='no LetterBox or Resize'):
        apply_tta(cfg, TTA())


def test_tta__refuses_bad_values() -> None:
    with pytest.raises(ConfigError, match='positive'):
        TTA(scales=(0,))
    with pytest.raises(ConfigError, match='nms, wbf'):
        TTA(merge='max')


@pytest.mark.parametrize('merge', ['nms', 'wbf'])
def test_detector__finds_the_flipped_boxes_in_a_flipped_picture(merge: str) -> None:
    detector = TTADetector(lite0(), 'none', TTA(scales=(), merge=merge))
    pixels = picture()
    [a] = detector(pixels)
    [b] = detector(np.ascontiguousarray(pixels[:, ::-1]))
    width = pixels.shape[1]
    mirrored = b.pred_instances.bboxes[:, [2, 1, 0, 3]] * torch.tensor([-1.0, 1, -1, 1])
    mirrored = mirrored + torch.tensor([width, 0, width, 0.0])
    torch.testing.assert_close(a.pred_instances.scores, b.pred_instances.scores, atol=1e-4, rtol=0)
    rows = torch.cdist(a.pred_instances.bboxes, mirrored).min(1).values
    assert (rows < 0.1).float().mean() > 0.8  # a network that has learnt nothing has many ties


def test_detector__the_views_are_those_of_the_detector() -> None:
    cfg = lite0()
    [single] = Detector(cfg, 'none')(picture())
    [merged] = TTADetector(cfg, 'none', TTA(scales=(), flip=False, merge='wbf'))(picture())
    best = single.pred_instances.scores.max()
    assert merged.pred_instances.scores.max() <= best
    [few] = TTADetector(cfg, 'none', TTA(), score_thr=float(best))(picture())
    assert (few.pred_instances.scores >= best).all()


def test_detector__mmdets_own_detectors(tiny_config: Config) -> None:
    [found] = TTADetector(tiny_config, 'none', TTA(scales=(2,)))(picture())
    assert found.pred_instances.bboxes.shape[1] == 4
