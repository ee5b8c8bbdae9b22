"""Mosaics: boxes where their pixels are, a function of seed and epoch, and one line where not."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from effdet_plugin.datasets.mosaic import MosaicCrop
from effdet_plugin.errors import ConfigError, DatasetError

NUMBER = 6
HEIGHT, WIDTH = 240, 320
SIZE = (128, 192)
PIPELINE: list[dict[str, Any]] = [
    dict(type='LoadImageFromFile'),
    dict(type='ToRGB'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ScaleJitterCrop', ratio_range=(0.3, 1.5)),
    dict(type='PackDetInputs'),
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Black images, each with a box of a grey and a label of its own; one of them is a crowd."""
    folder = tmp_path_factory.mktemp('images')
    document: dict[str, Any] = {'images': [], 'annotations': []}
    document['categories'] = [{'id': i, 'name': f'thing{i}'} for i in range(NUMBER)]
    for i in range(NUMBER):
        x, y, width, height = 20 + 30 * i, 40, 100, 120
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        image[y : y + height, x : x + width] = 150 + 20 * i
        assert cv2.imwrite(str(folder / f'{i}.png'), image)
        size = {'height': HEIGHT, 'width': WIDTH}
        document['images'].append({'id': i, 'file_name': f'{i}.png', **size})
        box = {'bbox': [x, y, width, height], 'area': width * height, 'iscrowd': int(i == 5)}
        document['annotations'].append({'id': i, 'image_id': i, 'category_id': i, **box})
    (folder / 'a.json').write_text(json.dumps(document), encoding='utf-8')
    return folder


def source(folder: Path, **settings: Any) -> dict[str, Any]:
    return dict(
        type='CocoDataset',
        data_root=str(folder),
        ann_file='a.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=tuple(f'thing{i}' for i in range(NUMBER))),
        **settings,
    )


def build(folder: Path, inner: dict[str, Any] | None = None, **settings: Any) -> Any:
    given = dict(image_size=SIZE, seed=7, mosaic=1.0, pipeline=PIPELINE) | settings
    given = {key: value for key, value in given.items() if value is not None}
    node = inner or source(folder)
    return DATASETS.build(dict(type='EfficientDetDataset', dataset=node, **given))


def content(sample: Any) -> tuple[bytes, list[list[float]], list[int], list[list[float]]]:
    truth, ignored = (sample['data_samples'].get(k) for k in ('gt_instances', 'ignored_instances'))
    boxes = truth.bboxes.tensor.tolist()
    pixels = sample['inputs'].numpy().tobytes()
    return pixels, boxes, truth.labels.tolist(), ignored.bboxes.tensor.tolist()


@pytest.fixture
def mosaics(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One number for each mosaic that is made."""
    made: list[int] = []
    make = MosaicCrop.mosaic

    def counted(crop: MosaicCrop, images: Any) -> Any:
        made.append(len(images))
        return make(crop, images)

    monkeypatch.setattr(MosaicCrop, 'mosaic', counted)
    return made


def test_mosaic__boxes_are_where_their_pixels_are(folder: Path) -> None:
    dataset = build(folder)
    count, ignored = 0, 0
    for epoch in range(20):
        sample = dataset[epoch, 0]
        image = sample['inputs'][0].numpy()
        assert image.shape == sample['data_samples'].img_shape == SIZE
        truth = sample['data_samples'].gt_instances
        boxes, labels = truth.bboxes.tensor.numpy(), truth.labels.numpy()
        assert boxes.dtype == np.float32
        assert len(boxes) == len(labels)
        assert (boxes >= 0).all()
        assert (boxes <= [SIZE[1], SIZE[0]] * 2).all()
        for box, label in zip(boxes, labels, strict=True):
            x1, y1, x2, y2 = np.round(box).astype(int)
            inside = image[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1]
            assert (np.abs(inside.astype(int) - (150 + 20 * label)) <= 1).all()
        # Whatever is as bright as an object lies in a box, up to a pixel at its edges.
        rest = image.copy()
        crowds = sample['data_samples'].ignored_instances.bboxes.tensor.numpy()
        for box in (*boxes, *crowds):
            x1, y1, x2, y2 = np.round(box).astype(int)
            rest[max(y1 - 1, 0) : y2 + 2, max(x1 - 1, 0) : x2 + 2] = 0
        assert (rest < 140).all()
        count += len(boxes)
        ignored += len(crowds)
    assert count > 40
    assert ignored > 0


def test_mosaic__a_function_of_seed_epoch_and_index_in_all_workers(folder: Path) -> None:
    keys = [(epoch, i) for epoch in (0, 1) for i in range(NUMBER)]
    alone = [content(build(folder)[key]) for key in keys]
    assert len({pixels for pixels, *_ in alone}) == len(keys)
    for settings in ({}, {'cache': 'ram:0.1'}):
        loader: DataLoader[Any] = DataLoader(
            build(folder, **settings),
            sampler=keys,
            num_workers=2,
            collate_fn=pseudo_collate,
            multiprocessing_context='fork',
        )
        found = [{key: value[0] for key, value in batch.items()} for batch in loader]
        assert [content(sample) for sample in found] == alone


def test_mosaic__its_share_and_its_epochs(folder: Path, mosaics: list[int]) -> None:
    keys = [(epoch, i) for epoch in range(10) for i in range(NUMBER)]
    dataset = build(folder, mosaic=0.5, mosaic_epochs=9)
    for key in keys[:-NUMBER]:
        dataset[key]
    number = len(mosaics)
    assert 0.3 < number / (9 * NUMBER) < 0.7
    assert {*mosaics} == {4}
    for key in keys[-NUMBER:]:
        dataset[key]
    assert len(mosaics) == number
    off, plain = build(folder, mosaic_epochs=0), build(folder, mosaic=0)
    assert [content(off[key]) for key in keys] == [content(plain[key]) for key in keys]


def test_mosaic__of_all_datasets_inside(folder: Path, mosaics: list[int]) -> None:
    halves = [source(folder, indices=[i, i + 1, i + 2]) for i in (0, 2)]
    dataset = build(folder, dict(type='ConcatDataset', datasets=halves))
    labels = [label for epoch in range(30) for label in content(dataset[epoch, 0])[2]]
    assert set(labels) == set(range(5))
    same = build(folder, dict(type='RepeatDataset', times=2, dataset=source(folder)))
    assert len(same) == 2 * NUMBER
    same[0, 2 * NUMBER - 1]
    assert len(mosaics) == 31


def test_mosaic__with_reduced_decoding(folder: Path, tmp_path: Path) -> None:
    document = json.loads((folder / 'a.json').read_text(encoding='utf-8'))
    for one in document['images']:
        image = cv2.imread(str(folder / one['file_name']))
        one['file_name'] = one['file_name'].replace('png', 'jpg')
        assert cv2.imwrite(str(tmp_path / one['file_name']), image)
    (tmp_path / 'a.json').write_text(json.dumps(document), encoding='utf-8')
    reduced, whole = build(tmp_path, reduced_decoding=True), build(tmp_path)
    assert reduced.pipeline.transforms[0].crop is reduced.pipeline.transforms[4]
    for epoch in range(10):
        one = reduced[epoch, 0]['data_samples'].gt_instances.bboxes.tensor
        assert (one[:, 2:] > one[:, :2]).all()
        image = reduced[epoch, 0]['inputs'][0].numpy()
        for x1, y1, x2, y2 in one.round().int().tolist():
            assert (image[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2] > 120).all()
    assert whole[0, 0]['inputs'].shape == (3, *SIZE)


def test_mosaic__in_mmdets_wrapper(folder: Path, mosaics: list[int]) -> None:
    dataset = DATASETS.build(
        dict(
            type='MultiImageMixDataset',
            dataset=source(folder, pipeline=PIPELINE[:4]),
            pipeline=[dict(type='MosaicCrop', prob=0.5, image_size=SIZE), PIPELINE[-1]],
        )
    )
    assert {dataset[0]['inputs'].shape for _ in range(20)} == {(3, *SIZE)}
    assert 0 < len(mosaics) < 20


def test_mosaic__a_missing_image_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / 'a.json').write_bytes((folder / 'a.json').read_bytes())
    (tmp_path / '0.png').write_bytes((folder / '0.png').read_bytes())
    with pytest.raises(DatasetError, match=r'[1-5]\.png: the image is missing'):
        [build(tmp_path)[epoch, 0] for epoch in range(3)]


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'mosaic': 1.5}, 'mosaic=1.5: give the share'),
        ({'mosaic': True}, 'mosaic=True: give the share'),
        ({'mosaic_epochs': 0.5}, 'mosaic_epochs=0.5: give a number'),
        ({'test_mode': True}, 'mosaic is for training'),
        ({'pipeline': [*PIPELINE[:4], dict(type='LetterBox'), PIPELINE[-1]]}, 'has 0'),
    ],
)
def test_mosaic__refused(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(folder, **settings)


def image(**more: Any) -> dict[str, Any]:
    boxes = HorizontalBoxes(torch.tensor([[4.0, 4, 20, 20]]))
    return dict(img=np.zeros((32, 48, 3), np.uint8), gt_bboxes=boxes, **more)


def test_mosaic_crop__needs_other_images_without_masks() -> None:
    with pytest.raises(ConfigError, match='no other images'):
        MosaicCrop(image_size=SIZE)(image())
    masks = image(gt_masks=BitmapMasks(np.zeros((1, 32, 48), np.uint8), 32, 48))
    with pytest.raises(ConfigError, match='gt_masks cannot'):
        MosaicCrop(image_size=SIZE)({**masks, 'mix_results': [image(), image(), image()]})
    with pytest.raises(ConfigError, match='scale_share'):
        TRANSFORMS.build(dict(type='MosaicCrop', scale_share=(0.5, 2.0)))


def test_mosaic_crop__small_boxes_are_dropped_as_in_a_crop() -> None:
    images = [image(gt_bboxes_labels=np.array([i])) for i in range(4)]
    crop = MosaicCrop(image_size=(16, 24), min_side=12.0, ratio_range=(1.0, 1.0))
    found = crop.mosaic(images)
    assert len(found['gt_bboxes']) == len(found['gt_bboxes_labels']) == 0
    assert found['img'].shape == (16, 24, 3)
