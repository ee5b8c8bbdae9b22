"""The resize mode: pixels, boxes, and the way of the key through configs and checkpoints."""

import logging
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

from effdet_plugin.config import (
    load,
    merge_options,
    resize_mode_of,
    set_resize_mode,
    size_pipelines,
)
from effdet_plugin.config.embedded import EMBEDDED, embed
from effdet_plugin.datasets import EfficientDetDataset, LetterBox, ScaleJitterCrop
from effdet_plugin.engine.resume import check_work_dir, write_config
from effdet_plugin.errors import ConfigError, UserError
from effdet_plugin.images import RESIZE_MODES
from effdet_plugin.inference import TTA, Detector, apply_tta
from effdet_plugin.trained_model import load_trained
from support import REPOSITORY, random_boxes

FOLDER = REPOSITORY / 'configs' / 'efficientdet'
SIZE = (64, 96)
shapes = st.tuples(st.integers(1, 150), st.integers(1, 150))
sizes = st.tuples(st.integers(8, 64), st.integers(8, 64))


def results(height: int, width: int) -> dict[str, Any]:
    random = np.random.RandomState(0)
    return {
        'img': random.randint(0, 256, (height, width, 3)).astype(np.uint8),
        'gt_bboxes': HorizontalBoxes(random_boxes(6, (height, width))),
        'gt_bboxes_labels': np.arange(6),
    }


def opencv(image: Any, size: tuple[int, int]) -> Any:
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def mediapipe(image: Any, size: tuple[int, int]) -> Any:
    """As google-ai-edge/mediapipe does it: from the corners of the image to those of the input."""
    (height, width), (rows, columns) = image.shape[:2], size
    corners = np.array([[0, 1], [0, 0], [1, 0], [1, 1]], np.float32)
    matrix = cv2.getPerspectiveTransform(
        corners * np.float32([width, height]), corners * np.float32([columns, rows])
    )
    return cv2.warpPerspective(
        image, matrix, (columns, rows), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


@pytest.mark.parametrize('dtype', ['uint8', 'float32'])
@pytest.mark.parametrize('size', [(64, 96), (320, 320), (17, 23)])
@pytest.mark.parametrize('shape', [(48, 64), (120, 31), (64, 96)])
def test_pixels__are_the_runtimes(
    shape: tuple[int, int], size: tuple[int, int], dtype: str
) -> None:
    given_ = results(*shape)
    image = given_['img'].copy()
    for mode, runtime in (('stretch', opencv), ('stretch_mediapipe', mediapipe)):
        found = LetterBox(size, dtype, mode).transform(dict(given_, img=image.copy()))
        assert found['img'].dtype == np.dtype(dtype)
        assert np.array_equal(found['img'], runtime(image, size))
        assert found['img_shape'] == size


def test_mediapipe__samples_without_the_shift_of_half_a_pixel() -> None:
    # Doubled: a pixel of the input at x shows the image at x / 2.
    ramp = np.repeat(np.arange(8, dtype=np.uint8)[None, :, None] * 10, 3, 2).repeat(4, 0)
    row = LetterBox((8, 16), 'float32', 'stretch_mediapipe').transform({'img': ramp})['img'][
        0, :, 0
    ]
    assert row.tolist() == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 70]


@given(shape=shapes, size=sizes, mode=st.sampled_from(RESIZE_MODES))
def test_boxes__map_back(shape: tuple[int, int], size: tuple[int, int], mode: str) -> None:
    given_ = results(*shape)
    before = given_['gt_bboxes'].tensor.clone()
    found = LetterBox(size, resize_mode=mode).transform(given_)
    assert found['resize_mode'] == mode
    factor = torch.tensor(found['scale_factor']).repeat(2)
    torch.testing.assert_close(found['gt_bboxes'].tensor / factor, before, rtol=1e-5, atol=1e-4)
    if mode != 'letterbox':  # the corners of the image are those of the input
        corners = torch.tensor([shape[1], shape[0]]).repeat(2) * factor
        torch.testing.assert_close(corners, torch.tensor([size[1], size[0]] * 2).float())


@pytest.mark.parametrize('mode', ['stretch', 'stretch_mediapipe'])
def test_jitter__at_scale_one_is_what_inference_sees(mode: str) -> None:
    one, other = results(50, 120), results(50, 120)
    crop = ScaleJitterCrop(SIZE, resize_mode=mode).crop(one, 1.0, (0.3, 0.7))
    seen = LetterBox(SIZE, resize_mode=mode).transform(other)
    assert np.array_equal(crop['img'], seen['img'])
    assert crop['scale_factor'] == pytest.approx(seen['scale_factor'])


@pytest.mark.parametrize('scale', [0.1, 0.5, 1.7])
@pytest.mark.parametrize('mode', ['stretch', 'stretch_mediapipe'])
def test_jitter__every_scale_has_the_aspect_ratio_of_inference(mode: str, scale: float) -> None:
    found = ScaleJitterCrop(SIZE, resize_mode=mode).crop(results(50, 120), scale, (0.5, 0.5))
    factors = np.array(found['scale_factor'])
    # Whole pixels: within one of the scaled sides.
    assert np.abs(factors * (120, 50) - np.array(SIZE[::-1]) * scale).max() <= 1
    assert found['img'].shape == (*SIZE, 3)


@pytest.mark.parametrize('make', [LetterBox, ScaleJitterCrop])
def test_unknown_mode__names_the_modes(make: Any) -> None:
    with pytest.raises(ConfigError, match=r'resize_mode.*strech.*letterbox.*stretch_mediapipe'):
        make(SIZE, resize_mode='strech')


def test_unknown_mode__of_dataset_config_and_option() -> None:
    cfg = load(FOLDER / 'lite0_coco.py')
    for act in (
        lambda: EfficientDetDataset({'type': 'CocoDataset'}, resize_mode='strech'),
        lambda: set_resize_mode(cfg, 'strech'),
        lambda: merge_options(cfg, ['resize_mode=strech']),
    ):
        with pytest.raises(ConfigError, match=r'resize_mode.*strech'):
            act()


def test_set__everywhere_in_a_config() -> None:
    cfg = load(FOLDER / 'lite0_coco.py', options=['resize_mode=stretch'])
    for name in ('train', 'val', 'test'):
        dataset = cfg[f'{name}_dataloader'].dataset
        assert dataset.resize_mode == resize_mode_of(dataset) == 'stretch'
        (step,) = (s for s in dataset.pipeline if s.type in ('LetterBox', 'ScaleJitterCrop'))
        assert TRANSFORMS.build({**step, 'image_size': SIZE}).resize_mode == 'stretch'


def test_set__config_whose_transforms_take_none() -> None:
    with pytest.raises(ConfigError, match='resize_mode'):
        set_resize_mode(Config({'model': {'type': 'RetinaNet'}}), 'stretch')
    assert resize_mode_of({'type': 'CocoDataset', 'pipeline': [{'type': 'Resize'}]}) is None


@pytest.mark.parametrize('name', ['lite0', 'lite1', 'lite2'])
def test_mediapipe_configs__differ_in_the_mode_only(name: str) -> None:
    cfg, plain = (load(FOLDER / f'{name}_{what}.py') for what in ('mediapipe', 'coco'))
    for part in ('train', 'val', 'test'):
        dataset = cfg[f'{part}_dataloader'].dataset
        assert dataset.pop('resize_mode') == 'stretch_mediapipe'
        assert dataset == plain[f'{part}_dataloader'].dataset
    assert cfg.model == plain.model


def test_dataset__hands_its_mode_to_its_transforms() -> None:
    init_default_scope('mmdet')
    pipeline = [{'type': 'LetterBox'}, {'type': 'ScaleJitterCrop'}]
    inner = {'type': 'CocoDataset', 'lazy_init': True, 'pipeline': pipeline}
    dataset = EfficientDetDataset(inner, image_size=SIZE, resize_mode='stretch')
    modes = [step.resize_mode for step in dataset.pipeline.transforms]
    assert modes == ['stretch', 'stretch']
    assert [step.image_size for step in dataset.pipeline.transforms] == [SIZE, SIZE]


def test_tta__every_view_is_stretched() -> None:
    cfg = load(FOLDER / 'lite0_mediapipe.py', image_size=128)
    apply_tta(cfg, TTA())
    (step,) = (s for s in cfg.test_dataloader.dataset.pipeline if s.type == 'TestTimeAug')
    modes = {
        view.resize_mode for group in step.transforms for view in group if 'image_size' in view
    }
    assert modes == {'stretch_mediapipe'}
    node = {'image_size': SIZE, 'resize_mode': 'stretch', 'pipeline': [{'type': 'LetterBox'}]}
    size_pipelines(node)
    assert node['pipeline'] == [{'type': 'LetterBox', 'image_size': SIZE, 'resize_mode': 'stretch'}]


@pytest.fixture
def warnings_of(caplog: pytest.LogCaptureFixture) -> Any:
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.WARNING)
    yield lambda: [m for m in caplog.messages if 'resize_mode' in m]
    logger.removeHandler(caplog.handler)


def test_checkpoint__keeps_its_mode_and_tells_a_config_of_another(
    tmp_path: Path, warnings_of: Any
) -> None:
    options = {'model.backbone.pretrained': False, 'image_size': 128}
    trained_on = load(FOLDER / 'lite0_mediapipe.py', options=options)
    detector = Detector(trained_on, 'none')
    meta = {EMBEDDED: embed(trained_on), 'dataset_meta': {'classes': tuple(detector.classes)}}
    torch.save({'state_dict': detector.model.state_dict(), 'meta': meta}, tmp_path / 'a.pth')

    own = load_trained(None, tmp_path / 'a.pth').config
    assert resize_mode_of(own.test_dataloader.dataset) == 'stretch_mediapipe'
    load_trained(trained_on, tmp_path / 'a.pth')
    assert not warnings_of()
    load_trained(load(FOLDER / 'lite0_coco.py', options=options), tmp_path / 'a.pth')
    (line,) = warnings_of()
    assert 'resize_mode=stretch_mediapipe' in line
    assert 'letterbox' in line
    assert '--resize stretch_mediapipe' in line

    image = np.random.RandomState(0).randint(0, 256, (60, 200, 3)).astype(np.uint8)
    (sample,) = Detector(None, tmp_path / 'a.pth')(image)
    assert sample.resize_mode == 'stretch_mediapipe'
    assert sample.scale_factor == pytest.approx((128 / 200, 128 / 60))
    (same,) = detector(image)
    torch.testing.assert_close(sample.pred_instances.bboxes, same.pred_instances.bboxes)


def test_work_dir__of_another_mode_is_refused(tmp_path: Path) -> None:
    write_config(tmp_path, load(FOLDER / 'lite0_mediapipe.py'))
    (tmp_path / 'epoch_1.pth').write_bytes(b'')
    with pytest.raises(UserError, match=r'another config.*resize_mode'):
        check_work_dir(tmp_path, load(FOLDER / 'lite0_coco.py'))


@pytest.mark.parametrize(
    'words',
    [
        ['--resize', 'stretch', '--cfg-options', 'a=1'],
        ['--cfg-options', 'a=1', '--resize', 'stretch'],
    ],
)
def test_option__of_all_tools(words: list[str]) -> None:
    path = REPOSITORY / 'tools' / '_bootstrap.py'
    spec = spec_from_file_location('bootstrap_of_tools', path)
    assert spec is not None
    assert spec.loader is not None
    bootstrap = module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(bootstrap)
    sys.path[:] = before
    parser = bootstrap.make_parser(None)
    bootstrap.add_config_options(parser)
    assert sorted(parser.parse_args(words).cfg_options) == ['a=1', 'resize_mode=stretch']
    assert parser.parse_args([]).cfg_options is None
