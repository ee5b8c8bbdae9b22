"""An exported file in the place of a network: the same detections, in the same pixels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_runtime import FakeRuntime, metadata_of, small_config, spread_network

from effdet_plugin.errors import CheckpointError, ConfigError
from effdet_plugin.inference import TTA, Detector
from effdet_plugin.inference import runtime_model as module
from effdet_plugin.inference.runtime_model import load_file
from effdet_plugin.trained_model import TrainedModel

Use = Callable[..., str]


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return spread_network(tmp_path_factory.mktemp('trained'))


@pytest.fixture
def use(trained: TrainedModel, monkeypatch: pytest.MonkeyPatch) -> Use:
    """Make `load_runtime` give a file of the network, whose metadata has these fields."""

    def put(**changes: Any) -> str:
        # The fields that say what a config says come from the original.
        original = TrainedModel(small_config(), trained.model, trained.classes)
        runtime = FakeRuntime(original, **changes)
        monkeypatch.setattr(module, 'load_runtime', lambda *_: runtime)
        return 'm.onnx'

    return put


def images() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in [(60, 80), (200, 100), (60, 80)]]


def assert_same(found: Any, expected: Any) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(
            one.pred_instances.bboxes, other.pred_instances.bboxes, atol=1e-3, rtol=0
        )
        torch.testing.assert_close(
            one.pred_instances.scores, other.pred_instances.scores, atol=1e-5, rtol=0
        )
        assert torch.equal(one.pred_instances.labels, other.pred_instances.labels)


@pytest.fixture(scope='module')
def expected(trained: TrainedModel) -> list[Any]:
    """What the checkpoint finds."""
    return Detector(None, trained.checkpoint, 'cpu', 0.3)(images())


@pytest.mark.parametrize(
    ('end', 'kind', 'batch_size'),
    [
        ('raw', 'float', 1),
        ('decoded', 'float', 3),
        ('postprocess', 'float', 3),
        ('raw', 'uint8', 3),
        ('postprocess', 'uint8', 1),
    ],
)
def test_detector__a_file_finds_what_the_checkpoint_finds(
    expected: list[Any], use: Use, end: str, kind: str, batch_size: int
) -> None:
    assert all(len(sample.pred_instances) for sample in expected)
    # Also by size: whether each image's boxes lie beyond what a smaller image's could.
    assert expected[1].pred_instances.bboxes[:, 3].max() > 60
    detector = Detector(use(end=end, input=kind), score_thr=0.3, batch_size=batch_size)
    assert detector.classes == ('circle', 'square')
    assert_same(detector(images()), expected)


def test_detector__a_file_with_a_config(expected: list[Any], use: Use) -> None:
    # The config's size is another one; the file's is used.
    assert_same(Detector(small_config((64, 64)), use(), score_thr=0.3)(images()), expected)


def test_detector__a_file_of_any_size(trained: TrainedModel, use: Use) -> None:
    path = use(image_size=None)
    expected = Detector(None, trained.checkpoint, 'cpu', 0.3, image_size='256x128')(images())
    assert_same(Detector(path, score_thr=0.3, image_size='256x128')(images()), expected)
    with pytest.raises(ConfigError, match='multiples of 128'):
        Detector(path, image_size=200)


def test_detector__test_time_augmentation_of_a_file_of_any_size(
    trained: TrainedModel, use: Use
) -> None:
    """Views of 256x128 (twice: 0.8 is rounded to it) and 384x256, each also flipped."""
    tta = TTA(scales=(0.8, 1.5), size_divisor=128)
    size = {'image_size': '256x128'}
    expected = Detector(None, trained.checkpoint, 'cpu', 0.3, tta=tta, **size)(images())
    found = Detector(use(image_size=None), score_thr=0.3, tta=TTA(scales=(0.8, 1.5)), **size)
    assert_same(found(images()), expected)
    plain = Detector(use(image_size=None), score_thr=0.3, **size)(images())
    assert any(
        len(one.pred_instances) != len(other.pred_instances)
        for one, other in zip(plain, expected, strict=True)
    )


def test_detector__flips_of_a_file_of_one_size(trained: TrainedModel, use: Use) -> None:
    flips = TTA(scales=())
    expected = Detector(None, trained.checkpoint, 'cpu', 0.3, tta=flips)(images())
    assert_same(Detector(use(), score_thr=0.3, tta=flips)(images()), expected)
    with pytest.raises(ConfigError, match='resizes the images itself'):
        Detector(use(input='uint8'), tta=flips)


@pytest.mark.parametrize('end', ['raw', 'decoded'])
def test_detector__nms_after_a_file(trained: TrainedModel, use: Use, end: str) -> None:
    arguments: dict[str, Any] = {'nms': 'hard', 'max_per_img': 7}
    expected = Detector(None, trained.checkpoint, 'cpu', **arguments)(images())
    assert_same(Detector(use(end=end), **arguments)(images()), expected)
    assert max(len(sample.pred_instances) for sample in expected) == 7


def test_detector__nms_inside_a_file(use: Use) -> None:
    path = use(end='postprocess')
    assert len(Detector(path, nms='soft', max_per_img=5)(images()[0])[0].pred_instances) == 5
    with pytest.raises(ConfigError, match='export it with --nms hard'):
        Detector(path, nms='hard')
    with pytest.raises(ConfigError, match='at most 100 objects'):
        Detector(path, max_per_img=101)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'image_size': 320}, 'its input is 192x128, not 320x320'),
        ({'tta': TTA()}, 'test-time augmentation'),
        ({'precision': 'bf16'}, 'its precision is in the file'),
        ({'options': {'model.bbox_head.num_classes': 3}}, 'model.bbox_head.num_classes cannot be'),
        ({'options': ['model.neck.num_cells=1']}, 'model.neck.num_cells cannot be'),
        ({'options': {'test_dataloaderr': 3}}, 'did you mean'),
    ],
)
def test_detector__refuses_what_a_file_cannot_follow(
    use: Use, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        Detector(use(), **arguments)
    assert '\n' not in str(error.value)


def test_detector__follows_what_the_file_has_anyway(use: Use) -> None:
    Detector(use(), image_size='192x128', options={'test_dataloader.batch_size': 2})


def test_load_file__anchors_that_do_not_fit(use: Use) -> None:
    cfg = small_config()
    cfg.model.bbox_head.anchor_generator.scales_per_octave = 2
    with pytest.raises(CheckpointError, match='export it again'):
        Detector(cfg, use())(images()[0])


def test_load_file__a_damaged_config(use: Use) -> None:
    for config in ('{', '{}', '{"model": {"type": "os.mkdir"}}'):
        with pytest.raises(CheckpointError, match=r'm\.onnx'):
            load_file(Path(use(config=config)))


def test_runtime_model__only_predicts(use: Use) -> None:
    model = load_file(Path(use())).model
    with pytest.raises(ConfigError, match='only predicts'):
        model(torch.zeros(1, 3, 128, 192), None, 'loss')


def test_stretched_images_have_two_scales(trained: TrainedModel, use: Use) -> None:
    model: Any = load_file(Path(use(input='uint8', resize_mode='stretch'))).model
    assert model._scale((64, 48)) == (4.0, 2.0)


def test_metadata_of__is_read_again(trained: TrainedModel) -> None:
    """The fake's metadata is such as a file has."""
    original = TrainedModel(small_config(), trained.model, trained.classes)
    known = metadata_of(original)
    assert type(known).from_json(known.to_json(), 'x').image_size == (128, 192)


@pytest.mark.parametrize(
    ('name', 'content', 'words'),
    [
        ('m.onnx', b'PK\x03\x04 a pth', 'renamed or cut'),
        ('m.onnx', b'', 'renamed or cut'),
        ('m.xml', b'<html></html>', 'renamed or cut'),
        ('m.pt2', b'\x08\x09', 'renamed or cut'),
        ('m.onnx', None, 'no such'),
        ('m.pth', b'\x08\x09:\x0bonnx', 'not a checkpoint'),
        ('m.pth', None, 'no such checkpoint'),
        ('m', None, 'no such checkpoint'),
    ],
)
def test_detector__foreign_files(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as error:
        Detector(tmp_path / name)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('mode', ['stretch', 'stretch_mediapipe'])
@pytest.mark.parametrize('form', ['float', 'uint8'])
def test_resize_mode__the_files_is_followed(
    trained: TrainedModel, use: Use, mode: str, form: str
) -> None:
    """Also where the config that is given says another."""
    checkpoint = trained.checkpoint
    stretched = Detector(None, checkpoint, 'cpu', 0.3, options=[f'resize_mode={mode}'])(images())
    detector = Detector(small_config(), use(resize_mode=mode, input=form), score_thr=0.3)
    assert_same(detector(images()), stretched)


def test_resize_mode__an_option_wins_outside_the_file(
    trained: TrainedModel, use: Use, expected: list[Any]
) -> None:
    options = ['resize_mode=letterbox']
    found = Detector(None, use(resize_mode='stretch'), score_thr=0.3, options=options)(images())
    assert_same(found, expected)
    with pytest.raises(ConfigError, match='inside the file, by stretch, not letterbox'):
        Detector(None, use(resize_mode='stretch', input='uint8'), options=options)
