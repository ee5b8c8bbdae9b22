"""Images to calibrate with: which ones, in which form, and what is said where there are none."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fake_runtime import small_config

from effdet_plugin.errors import ConfigError, DatasetError
from effdet_plugin.export.calibration import calibration_images
from effdet_plugin.export.images import Preparation
from effdet_plugin.inference import Detector
from effdet_plugin.trained_model import load_trained

SIZE = (128, 192)


@pytest.fixture(scope='module')
def model() -> Any:
    return load_trained(small_config(SIZE), 'none', 'cpu').model


def write_images(folder: Path, count: int) -> list[Path]:
    rng = np.random.default_rng(3)
    paths = [folder / ('below' * (n % 2)) / f'{n}.png' for n in range(count)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, (40 + len(path.name), 90, 3), np.uint8))
    return paths


def test_folder__a_seeded_draw_of_all_below_it(model: Any, tmp_path: Path) -> None:
    paths = write_images(tmp_path, 12)
    (tmp_path / 'notes.txt').write_text('no image')
    prepare = Preparation(model, SIZE, 'float32')
    cfg = small_config(SIZE)

    some = calibration_images(cfg, prepare, tmp_path, 5, seed=1)
    assert len(some) == len(set(some.paths)) == 5
    assert set(some.paths) <= set(paths)
    assert some.paths == calibration_images(cfg, prepare, tmp_path, 5, seed=1).paths
    assert some.paths != calibration_images(cfg, prepare, tmp_path, 5, seed=2).paths
    assert sorted(calibration_images(cfg, prepare, tmp_path).paths) == sorted(paths)


def test_images__are_what_the_test_pipeline_gives(model: Any, tmp_path: Path) -> None:
    write_images(tmp_path, 3)
    cfg = small_config(SIZE)
    images = calibration_images(cfg, Preparation(model, SIZE, 'float32'), tmp_path)
    detector = Detector(cfg, 'none', 'cpu')
    for pixels, prepared in zip(images.pixels(), images, strict=True):
        packed = detector._prepare(detector._as_results(pixels))
        batch = detector.model.data_preprocessor({key: [x] for key, x in packed.items()})
        np.testing.assert_array_equal(batch['inputs'][0].numpy(), prepared)


def test_config__its_training_images(model: Any, tmp_path: Path) -> None:
    paths = write_images(tmp_path, 4)
    names = [path.relative_to(tmp_path).as_posix() for path in paths]
    known = [dict(id=n, file_name=name, width=90, height=45) for n, name in enumerate(names)]
    objects = [dict(id=n, image_id=n, category_id=1, bbox=[1, 1, 9, 9], area=81) for n in range(4)]
    kinds = [dict(id=1, name='circle'), dict(id=2, name='square')]
    annotations = tmp_path / 'train.json'
    annotations.write_text(json.dumps(dict(images=known, annotations=objects, categories=kinds)))
    cfg = small_config(SIZE)
    source = cfg.train_dataloader.dataset
    while source.get('dataset'):
        source = source.dataset
    source.update(data_root=str(tmp_path), ann_file='train.json', data_prefix={'img': ''})
    source.metainfo = {'classes': ('circle', 'square')}
    found = calibration_images(cfg, Preparation(model, SIZE, 'uint8'), None, 3)
    assert len(found) == 3
    assert set(found.paths) <= set(paths)


def test_errors__in_one_line(model: Any, tmp_path: Path) -> None:
    prepare, cfg = Preparation(model, SIZE, 'uint8'), small_config(SIZE)
    with pytest.raises(DatasetError, match='no images in this folder'):
        calibration_images(cfg, prepare, tmp_path)
    with pytest.raises(DatasetError, match='no such folder'):
        calibration_images(cfg, prepare, tmp_path / 'none')
    cfg.pop('train_dataloader')
    with pytest.raises(DatasetError, match='--calib DIR'):
        calibration_images(cfg, prepare)
    (tmp_path / 'cut.jpg').write_bytes(b'\xff\xd8\xff')
    with pytest.raises(DatasetError, match=r'cut\.jpg'):
        list(calibration_images(cfg, prepare, tmp_path))
    with pytest.raises(ConfigError, match='--calib-count 0'):
        calibration_images(cfg, prepare, tmp_path, 0)
