"""Test-time augmentation: sizes and flips of the views, and the detector that merges them."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from effdet_plugin.config import load
from effdet_plugin.errors import ConfigError
from effdet_plugin.files import write_image
from effdet_plugin.inference import TTA, Detector, apply_tta
from effdet_plugin.inference.tta import scaled_size, views_pipeline
from support import REPOSITORY

LITE0 = REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py'


def random_image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def lite0(size: int = 128) -> Config:
    return load(LITE0, image_size=size)


def test_scaled_size__steps_of_64_and_the_own_size_exact() -> None:
    assert scaled_size((320, 500), 1) == (320, 500)
    assert scaled_size((320, 500), 1.25) == (384, 640)
    assert scaled_size((64, 64), 0.1) == (64, 64)


def test_views_pipeline__scales_the_resize_of_mmdets_pipelines(tiny_config: Config) -> None:
    pipeline = tiny_config.test_dataloader.dataset.dataset.pipeline
    views = views_pipeline(pipeline, TTA(scales=(2,)))
    assert [step['scale'] for step in views[-1]['transforms'][1]] == [(96, 64), (192, 128)]
    assert pipeline[1].scale == (96, 64)


@pytest.mark.parametrize('own', [None, (7, 7)])
def test_apply__each_dataset_has_its_size(own: tuple[int, int] | None) -> None:
    """Also in a ConcatDataset; the dataset's size replaces the step's own."""
    pipeline = [dict(type='LetterBox', image_size=own), dict(type='PackDetInputs')]
    inner = dict(type='CocoDataset', pipeline=pipeline)
    sets = [
        dict(type='EfficientDetDataset', image_size=size, dataset=inner)
        for size in ((128, 192), (256, 256))
    ]
    cfg = Config(dict(test_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=sets))))
    apply_tta(cfg, TTA(scales=(0.5,), flip=False))
    sizes = [
        [step['image_size'] for step in node.dataset.pipeline[-1]['transforms'][1]]
        for node in cfg.test_dataloader.dataset.datasets
    ]
    assert sizes == [[(128, 192), (64, 128)], [(256, 256), (128, 128)]]


def test_apply__pipeline_of_views() -> None:
    init_default_scope('mmdet')
    cfg = lite0()
    model = apply_tta(cfg, TTA(scales=(0.5,), merge='wbf'))
    assert model == dict(type='EfficientDetTTAModel', merge='wbf')
    steps = cfg.test_dataloader.dataset.pipeline
    prepare = Compose([step for step in steps if step['type'] != 'LoadImageFromFile'])
    for view in prepare.transforms[-1].subroutines:
        view.transforms = [t for t in view.transforms if 'Annotations' not in type(t).__name__]
    pixels = random_image()
    made = prepare(
        dict(img=pixels, img_shape=(90, 120), ori_shape=(90, 120), img_id=1, img_path='')
    )
    sizes = [tuple(image.shape[-2:]) for image in made['inputs']]
    assert sizes == [(128, 128), (64, 64), (128, 128), (64, 64)]
    assert [s.metainfo['flip'] for s in made['data_samples']] == [False, False, True, True]
    plain, flipped = made['inputs'][0], made['inputs'][2]
    width = made['data_samples'][0].metainfo['img_shape'][1]
    torch.testing.assert_close(flipped[:, :, :width], plain[:, :, :width].flip(-1), atol=1, rtol=0)


@pytest.mark.parametrize(
    ('pipeline', 'words'),
    [([dict(type='PackDetInputs')], 'LetterBox.*Resize'), ([dict(type='LetterBox')], 'image_size')],
)
def test_apply__needs_a_step_with_a_size(pipeline: list[dict[str, object]], words: str) -> None:
    cfg = Config(dict(test_dataloader=dict(dataset=dict(type='X', pipeline=pipeline))))
    with pytest.raises(ConfigError, match=f'test_dataloader.*{words}'):
        apply_tta(cfg, TTA())


def test_tta__bad_values() -> None:
    with pytest.raises(ConfigError, match=r'scales.*0'):
        TTA(scales=(0,))
    with pytest.raises(ConfigError, match='nms, wbf'):
        TTA(merge='max')


@pytest.mark.parametrize('merge', ['nms', 'wbf'])
def test_detector__finds_the_mirrored_boxes_in_a_mirrored_image(merge: str) -> None:
    detector = Detector(lite0(), 'none', tta=TTA(scales=(), merge=merge))
    pixels = random_image()
    [a] = detector(pixels)
    [b] = detector(pixels[:, ::-1])
    width = pixels.shape[1]
    mirrored = b.pred_instances.bboxes[:, [2, 1, 0, 3]] * torch.tensor([-1.0, 1, -1, 1])
    mirrored = mirrored + torch.tensor([width, 0, width, 0.0])
    torch.testing.assert_close(a.pred_instances.scores, b.pred_instances.scores, atol=1e-4, rtol=0)
    distances = torch.cdist(a.pred_instances.bboxes, mirrored).min(1).values
    assert (distances < 0.1).float().mean() > 0.8  # an untrained network has many ties


def test_detector__one_view_finds_what_the_detector_finds() -> None:
    cfg = lite0()
    [single] = Detector(cfg, 'none')(random_image())
    [merged] = Detector(cfg, 'none', tta=TTA(scales=(), flip=False))(random_image())
    scores = single.pred_instances.scores
    assert len(merged.pred_instances) > 0
    assert torch.isin(merged.pred_instances.scores, scores).all()
    [wbf] = Detector(cfg, 'none', tta=TTA(scales=(), flip=False, merge='wbf'))(random_image())
    assert wbf.pred_instances.scores.max() <= scores.max()


def test_detector__score_thr_is_of_the_merged_detections(tiny_config: Config) -> None:
    tta, image = TTA(scales=(2,), merge='wbf'), random_image()
    scores = Detector(tiny_config, 'none', tta=tta)(image)[0].pred_instances.scores
    middle = float(scores[len(scores) // 2])
    few = Detector(tiny_config, 'none', score_thr=middle, tta=tta)(image)[0].pred_instances.scores
    assert 0 < len(few) == int((scores >= middle).sum()) < len(scores)


def test_detector__batches_files_and_the_config_stays(tmp_path: Path) -> None:
    cfg = lite0()
    images = [random_image(seed)[: 90 - 20 * seed] for seed in range(3)]
    write_image(tmp_path / 'a.png', images[1])
    before = copy.deepcopy(cfg.test_dataloader)
    detector = Detector(cfg, 'none', batch_size=2, tta=TTA())
    together = detector([images[0], tmp_path / 'a.png', images[2]])
    assert cfg.test_dataloader == before
    for sample, image in zip(together, images, strict=True):
        assert sample.ori_shape == image.shape[:2]
        [alone] = detector(image)
        torch.testing.assert_close(sample.pred_instances.scores, alone.pred_instances.scores)
        torch.testing.assert_close(
            sample.pred_instances.bboxes, alone.pred_instances.bboxes, atol=1e-3, rtol=1e-4
        )


def test_detector__mmdets_own_detectors(tiny_config: Config) -> None:
    [found] = Detector(tiny_config, 'none', tta=TTA(scales=(2,)))(random_image())
    assert found.pred_instances.bboxes.shape[1] == 4


def test_detector__a_configs_own_tta_pipeline(tiny_config: Config) -> None:
    """As mmdet's configs write it: the annotations are loaded inside of TestTimeAug."""
    tiny_config.tta_pipeline = [
        dict(type='LoadImageFromFile'),
        dict(
            type='TestTimeAug',
            transforms=[
                [dict(type='Resize', scale=s, keep_ratio=True) for s in ((96, 64), (192, 128))],
                [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)],
                [dict(type='LoadAnnotations', with_bbox=True)],
                [
                    dict(
                        type='PackDetInputs',
                        meta_keys=(
                            'ori_shape',
                            'img_shape',
                            'scale_factor',
                            'flip',
                            'flip_direction',
                        ),
                    )
                ],
            ],
        ),
    ]
    shapes: list[tuple[int, ...]] = []
    detector = Detector(tiny_config, 'none', tta=TTA())
    backbone = detector.model.get_submodule('backbone')
    backbone.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    detector(random_image())
    assert len(shapes) == 4
    assert len(set(shapes)) == 2
