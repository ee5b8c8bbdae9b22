"""The detector with any mmdet config: sizes, batches, class names, user errors."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData

from effdet_plugin.config import load
from effdet_plugin.datasets import ToRGB
from effdet_plugin.errors import CheckpointError, ConfigError, DatasetError
from effdet_plugin.files import write_image
from effdet_plugin.inference import TTA, Detector
from support import REPOSITORY


def _images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [(60, 80), (200, 100), (1, 1)]
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def test_detector__boxes_lie_in_their_own_image(tiny_config: Config) -> None:
    images = _images()
    samples = Detector(tiny_config, 'none', batch_size=2)(images)
    assert len(samples) == 3
    assert len(samples[1].pred_instances) == 5
    for image, sample in zip(images, samples, strict=True):
        boxes = sample.pred_instances.bboxes
        limits = torch.tensor([image.shape[1], image.shape[0]]).repeat(2)
        assert (boxes >= 0).all()
        assert (boxes <= limits + 1e-3).all()
    assert samples[1].pred_instances.bboxes[:, 3].max() > 60  # beyond what the network saw


def test_detector__clips_to_the_image(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A box that reaches outside is clipped; one in the padding is dropped."""
    detector = Detector(tiny_config, 'none')

    def found(data: dict[str, Any]) -> list[DetDataSample]:
        boxes = torch.tensor([[-5.0, 10.0, 50.0, 99.0], [10.0, 70.0, 20.0, 80.0]])
        (sample,) = data['data_samples']
        sample.pred_instances = InstanceData(
            bboxes=boxes, scores=torch.ones(2), labels=torch.zeros(2, dtype=torch.long)
        )
        return [sample]

    monkeypatch.setattr(detector.model, 'test_step', found)
    (sample,) = detector(np.zeros((60, 80, 3), np.uint8))
    assert sample.pred_instances.bboxes.tolist() == [[0.0, 10.0, 50.0, 60.0]]


def test_detector__a_batch_gives_what_single_images_give(tiny_config: Config) -> None:
    images = [image[:48, :64] for image in (_images()[0], _images()[0][::-1])]
    together = Detector(tiny_config, 'none', batch_size=2)(images)
    detector = Detector(tiny_config, 'none')
    for sample, image in zip(together, images, strict=True):
        alone = detector(image)[0].pred_instances
        torch.testing.assert_close(sample.pred_instances.bboxes, alone.bboxes)
        torch.testing.assert_close(sample.pred_instances.scores, alone.scores)


def test_detector__files_and_pixels_give_the_same(tiny_config: Config, tmp_path: Path) -> None:
    image = _images()[0]
    write_image(tmp_path / 'a.png', image)
    detector = Detector(tiny_config, 'none')
    from_file, from_pixels = detector([tmp_path / 'a.png', image])
    torch.testing.assert_close(from_file.pred_instances.scores, from_pixels.pred_instances.scores)
    assert from_file.img_path == str(tmp_path / 'a.png')


def _channel_means(detector: Detector) -> list[list[float]]:
    """Return the mean of each channel that reaches the backbone for a red image."""
    seen: list[torch.Tensor] = []
    backbone = detector.model.get_submodule('backbone')
    backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    detector(np.full((64, 96, 3), (255, 0, 0), np.uint8))
    return [one[0].mean((1, 2)).tolist() for one in seen]


@pytest.mark.parametrize('tta', [None, TTA(scales=())])
def test_detector__mmdets_preprocessor_swaps_the_channels(
    tiny_config: Config, tta: TTA | None
) -> None:
    """It turns BGR into RGB: a red image must arrive with red first."""
    for means in _channel_means(Detector(tiny_config, 'none', tta=tta)):
        assert means == pytest.approx([1.0, 0.0, 0.0])


@pytest.mark.parametrize('tta', [None, TTA(scales=())])
def test_detector__rgb_stays_rgb_with_our_configs(
    tta: TTA | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pipelines that swap the channels themselves get RGB, and nothing is swapped."""
    swapped: list[dict[str, Any]] = []
    monkeypatch.setattr(ToRGB, 'transform', lambda _, results: swapped.append(results) or results)
    cfg = load(REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py', image_size=128)
    cfg.model.data_preprocessor.update(mean=[0.0] * 3, std=[255.0] * 3)
    for means in _channel_means(Detector(cfg, 'none', tta=tta)):
        red, *others = means
        assert red > 0.5
        assert others == pytest.approx([0.0, 0.0])
    assert not swapped


def test_detector__an_image_of_any_layout_is_not_changed(tiny_config: Config) -> None:
    image = _images()[0]
    detector = Detector(tiny_config, 'none')
    mirrored = np.ascontiguousarray(image[:, ::-1])
    before = image.copy()
    one, two = detector([image[:, ::-1], mirrored])
    torch.testing.assert_close(one.pred_instances.bboxes, two.pred_instances.bboxes)
    assert np.array_equal(image, before)


def test_detector__random_weights_are_the_same_each_time(tiny_config: Config) -> None:
    before = torch.random.get_rng_state()
    first, second = (Detector(tiny_config, 'none').model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.random.get_rng_state())


def test_detector__score_thr_leaves_out_the_rest(tiny_config: Config) -> None:
    image = _images()[0]
    scores = Detector(tiny_config, 'none')(image)[0].pred_instances.scores
    middle = float(scores.sort().values[2])
    above = Detector(tiny_config, 'none', score_thr=middle)(image)[0].pred_instances.scores
    assert len(above) == int((scores >= middle).sum()) < len(scores)


def test_detector__weights_and_names_from_a_checkpoint(tiny_config: Config, tmp_path: Path) -> None:
    model = Detector(tiny_config, 'none', seed=1).model
    meta = {'dataset_meta': {'classes': ('owl', 'fox')}}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, tmp_path / 'a.pth')
    detector = Detector(tiny_config, tmp_path / 'a.pth')
    assert detector.classes == ('owl', 'fox')
    own = detector.model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in model.state_dict().items())


def test_detector__names_from_the_config_or_numbers(tiny_config: Config) -> None:
    assert Detector(tiny_config, 'none').classes == ('cat', 'dog')
    del tiny_config.test_dataloader.dataset.dataset['metainfo']
    assert Detector(tiny_config, 'none').classes == ('0', '1')  # not 2 of COCO's 80


def test_detector__checkpoint_of_other_classes(tiny_config: Config, tmp_path: Path) -> None:
    model = Detector(tiny_config, 'none').model
    meta = {'dataset_meta': {'classes': ('owl', 'fox')}}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, tmp_path / 'a.pth')
    tiny_config.model.bbox_head.num_classes = 4
    with pytest.raises(CheckpointError, match=r'2 classes.* 4'):
        Detector(tiny_config, tmp_path / 'a.pth')


def test_detector__mistakes_are_one_line(tiny_config: Config, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r'none\.jpg'):
        Detector(tiny_config, 'none')([tmp_path / 'none.jpg'])
    with pytest.raises(ConfigError, match='abacus'):
        Detector(tiny_config, 'none', device='abacus')
    with pytest.raises(ConfigError, match=r'none\.py'):
        Detector(tmp_path / 'none.py', 'none')


def test_detector__a_step_without_a_type(tiny_config: Config) -> None:
    tiny_config.test_dataloader.dataset.dataset.pipeline.append({'meta_keys': []})
    with pytest.raises(ConfigError, match=r'step \d+ has no type'):
        Detector(tiny_config, 'none', 'cpu')


class _Trap:
    """An object whose unpickling leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_detector__never_runs_what_is_pickled(tiny_config: Config, tmp_path: Path) -> None:
    mark = tmp_path / 'mark'
    torch.save({'state_dict': {}, 'meta': _Trap(mark)}, tmp_path / 'trap.pth')
    with pytest.raises(CheckpointError, match=r'trap\.pth'):
        Detector(tiny_config, tmp_path / 'trap.pth')
    assert not mark.exists()


def test_detector__a_checkpoint_of_another_network(tiny_config: Config, tmp_path: Path) -> None:
    torch.save(Detector(tiny_config, 'none').model.state_dict(), tmp_path / 'a.pth')
    tiny_config.model.bbox_head.stacked_convs = 2
    with pytest.raises(CheckpointError, match=r'cls_convs'):
        Detector(tiny_config, tmp_path / 'a.pth')
