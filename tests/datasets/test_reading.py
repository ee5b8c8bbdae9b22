"""Cached and reduced images: batches are equal with and without a cache, boxes stay right."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.dataset import pseudo_collate
from PIL import Image
from torch.utils.data import DataLoader

from effdet_plugin.datasets.reader import ImageReader
from effdet_plugin.errors import ConfigError

NUMBER = 6
HEIGHT, WIDTH = 333, 415  # no multiples of what JPEGs are reduced by
SQUARE = (120, 90, 200, 210)  # xyxy in each image
PIPELINE: list[dict[str, Any]] = [
    dict(type='LoadImageFromFile'),
    dict(type='ToRGB'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ScaleJitterCrop', ratio_range=(0.3, 1.0)),
    dict(type='PackDetInputs'),
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey JPEGs with a bright square, of another grey each."""
    folder = tmp_path_factory.mktemp('images')
    x1, y1, x2, y2 = SQUARE
    document: dict[str, Any] = {'categories': [{'id': 1, 'name': 'thing'}]}
    document |= {'images': [], 'annotations': []}
    for i in range(NUMBER):
        image = np.full((HEIGHT, WIDTH, 3), 10 * i, np.uint8)
        image[y1:y2, x1:x2] = 255
        assert cv2.imwrite(str(folder / f'{i}.jpg'), image)
        size = {'height': HEIGHT, 'width': WIDTH}
        document['images'].append({'id': i, 'file_name': f'{i}.jpg', **size})
        box = {'bbox': [x1, y1, x2 - x1, y2 - y1], 'area': 9600, 'iscrowd': 0}
        document['annotations'].append({'id': i, 'image_id': i, 'category_id': 1, **box})
    (folder / 'a.json').write_text(json.dumps(document), encoding='utf-8')
    return folder


def build(folder: Path, pipeline: list[dict[str, Any]] = PIPELINE, **settings: Any) -> Any:
    source = dict(
        type='CocoDataset',
        data_root=str(folder),
        ann_file='a.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=('thing',)),
        pipeline=pipeline,
    )
    given = dict(image_size=(128, 160), seed=7, dataset=source, **settings)
    return DATASETS.build(dict(type='EfficientDetDataset', **given))


def batches(dataset: Any, workers: int = 0, context: str | None = None) -> list[Any]:
    """Two epochs: in the second one a cache is filled."""
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=2,
        sampler=[(epoch, i) for epoch in (0, 1) for i in range(NUMBER)],
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=pseudo_collate,
        multiprocessing_context=context if workers else None,
    )
    return [
        (
            [x.numpy().tobytes() for x in batch['inputs']],
            [one.gt_instances.bboxes.tensor.tolist() for one in batch['data_samples']],
            [one.metainfo for one in batch['data_samples']],
        )
        for batch in loader
    ]


@pytest.mark.parametrize('is_reduced', [False, True], ids=['whole', 'reduced'])
def test_cache__batches_are_equal(folder: Path, tmp_path: Path, is_reduced: bool) -> None:
    settings: dict[str, Any] = {'reduced_decoding': is_reduced}
    expected = batches(build(folder, **settings))
    for cache in ('ram:0.1', f'{tmp_path / "cache"}:0.1'):
        dataset = build(folder, cache=cache, **settings)
        assert batches(dataset, workers=2, context='fork') == expected
        used = dataset.cache.used
        assert used > 0  # the workers' images, in this process
        assert batches(dataset) == expected
        if not is_reduced:
            assert dataset.cache.used == used  # all were there
            assert used >= NUMBER * HEIGHT * WIDTH * 3


def test_cache__a_replaced_image_of_that_size_and_time_is_read_again(
    folder: Path, tmp_path: Path
) -> None:
    reader = build(folder, cache='ram:0.1').pipeline.transforms[0]
    values = []
    for grey in (50, 200):
        file = tmp_path / 'one.bmp'
        assert cv2.imwrite(str(file), np.full((200, 200, 3), grey, np.uint8))
        os.utime(file, ns=(1, 1))
        values.append(reader({'img_path': str(file)})['img'][0, 0, 0])
    assert values == [50, 200]


def test_cache__hits_do_not_decode(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = build(folder, cache='ram:0.1')
    expected = batches(dataset)
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('was decoded'))
    assert batches(dataset) == expected


def test_cache__a_changed_image_is_read_again(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / 'one.jpg'
    reader = build(folder, cache='ram:0.1').pipeline.transforms[0]
    assert isinstance(reader, ImageReader)
    values = []
    for grey in (50, 200):
        assert cv2.imwrite(str(file), np.full((200, 200, 3), grey, np.uint8))
        os.utime(file, ns=(grey, grey))
        for _ in range(2):
            values.append(reader({'img_path': str(file)})['img'][0, 0, 0])
    assert values == [50, 50, 200, 200]


@pytest.mark.parametrize('bad', [True, False, 3, ''])
def test_cache__only_text_is_a_place(folder: Path, bad: Any) -> None:
    with pytest.raises(ConfigError, match=r'cache.*give ram, ram:GB, DIR or DIR:GB'):
        build(folder, cache=bad)


def test_reduced__boxes_are_where_their_pixels_are(folder: Path) -> None:
    dataset, plain = build(folder, reduced_decoding=True), build(folder)
    reductions, flips = set(), set()
    reader = dataset.pipeline.transforms[0]
    for epoch in range(10):
        for i in range(NUMBER):
            sample = dataset[epoch, i]
            (box,) = sample['data_samples'].gt_instances.bboxes.tensor.tolist()
            rows, columns = np.nonzero(sample['inputs'][0].numpy() > 160)
            edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert edges == pytest.approx(box, abs=1.0)
            meta = sample['data_samples'].metainfo
            assert meta['ori_shape'] == (HEIGHT, WIDTH)
            expected = (SQUARE[2] - SQUARE[0]) * meta['scale_factor'][0]
            assert box[2] - box[0] == pytest.approx(expected, abs=1e-3)
            flips.add(meta['flip'])
            np.random.seed(epoch * NUMBER + i)
            reductions.add(reader(plain.get_data_info(i)).get('reduction', 1))
    assert flips == {True, False}
    assert reductions == {2, 4, 8}


def test_reduced__orientation_and_other_formats(tmp_path: Path, folder: Path) -> None:
    """A turned JPEG is turned when it is reduced; a PNG is read whole."""
    reader = build(folder, reduced_decoding=True).pipeline.transforms[0]
    image = np.zeros((240, 400, 3), np.uint8)
    image[:120] = 250
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    Image.fromarray(image).save(tmp_path / 'turned.jpg', exif=exif)
    Image.fromarray(image).save(tmp_path / 'plain.png')
    shutil.copy(tmp_path / 'plain.png', tmp_path / 'png.jpg')
    found = reader({'img_path': str(tmp_path / 'turned.jpg'), 'height': 400, 'width': 240})
    assert found['ori_shape'] == (400, 240)
    number = found['reduction']
    assert found['img'].shape == (400 // number, 240 // number, 3)
    assert found['img'][10, -5:].min() > 200
    assert found['img'][10, :5].max() < 50
    for name in ('plain.png', 'png.jpg'):
        found = reader({'img_path': str(tmp_path / name), 'height': 240, 'width': 400})
        assert 'reduction' not in found
        assert found['img_shape'] == found['ori_shape'] == (240, 400)
    with pytest.raises(FileNotFoundError):
        reader({'img_path': str(tmp_path / 'missing.jpg'), 'height': 240, 'width': 400})


@pytest.mark.parametrize('cache', ['ram:0.1', None])
@pytest.mark.parametrize('kind', ['a PNG', 'another size'])
def test_reduced__what_cannot_be_is_read_whole_each_time(
    tmp_path: Path, folder: Path, kind: str, cache: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its boxes stay, also when the image is found in the cache."""
    reader = build(folder, cache=cache, reduced_decoding=True).pipeline.transforms[0]
    monkeypatch.setattr(reader.crop, 'draw_scale', lambda: 0.3)
    height, width = (240, 400) if kind == 'a PNG' else (2400, 4000)
    suffix = '.png' if kind == 'a PNG' else '.jpg'
    image = np.random.default_rng(0).integers(0, 255, (240, 400, 3), dtype=np.uint8)
    (tmp_path / 'one.jpg').write_bytes(cv2.imencode(suffix, image)[1].tobytes())
    for _ in range(3):
        info = {'img_path': str(tmp_path / 'one.jpg'), 'height': height, 'width': width}
        found = reader({**info, 'instances': [{'bbox': [8.0, 8.0, 80.0, 80.0]}]})
        assert np.array_equal(found['img'], cv2.imread(str(tmp_path / 'one.jpg')))
        assert found['instances'][0]['bbox'] == [8.0, 8.0, 80.0, 80.0]
        assert found['ori_shape'] == found['img_shape'] == (240, 400)
        assert 'reduction' not in found


@pytest.mark.parametrize(
    ('steps', 'message'),
    [
        ([dict(type='LoadImageFromFile', ignore_empty=True), *PIPELINE[1:]], 'begins with'),
        ([dict(type='LoadImageFromFile', to_float32=True), *PIPELINE[1:]], 'begins with'),
        ([*PIPELINE[:3], dict(type='PackDetInputs')], 'no ScaleJitterCrop|PackDetInputs stands'),
        (
            [*PIPELINE[:3], dict(type='Resize', scale=(9, 9)), *PIPELINE[3:]],
            'Resize stands before ScaleJitterCrop',
        ),
    ],
)
def test_reduced__refused_where_it_would_be_wrong(
    folder: Path, steps: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(folder, steps, reduced_decoding=True)


def test_annotations__one_array_for_all_workers(folder: Path) -> None:
    """Forked workers share its pages: reading counts no references in them."""
    source = build(folder).dataset
    assert source.serialize_data
    assert source.data_list == []
    assert isinstance(source.data_bytes, np.ndarray)
    assert torch.from_numpy(source.data_bytes).dtype == torch.uint8
