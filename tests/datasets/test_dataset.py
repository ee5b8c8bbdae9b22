import json
import logging
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from mmdet.engine.hooks import PipelineSwitchHook
from mmdet.registry import DATASETS
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from effdet_plugin.datasets import EfficientDetDataset
from effdet_plugin.datasets.dataset import seeded
from effdet_plugin.errors import ConfigError, DatasetError

NUMBER = 5
PIPELINE: list[dict[str, Any]] = [
    dict(type='LoadImageFromFile'),
    dict(type='ToRGB'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ScaleJitterCrop'),
    dict(type='PackDetInputs'),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five noisy images with two boxes each, in COCO's form."""
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(NUMBER):
        image = generator.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        assert cv2.imwrite(str(tmp_path / f'{i}.png'), image)
        images.append(dict(id=i, file_name=f'{i}.png', height=48, width=64))
        for k in range(2):
            box = [4 + 3 * i, 5 + 10 * k, 20, 12]
            annotations.append(
                dict(id=2 * i + k, image_id=i, category_id=1, bbox=box, area=240, iscrowd=0)
            )
    categories = [dict(id=1, name='thing')]
    document = dict(images=images, annotations=annotations, categories=categories)
    (tmp_path / 'a.json').write_text(json.dumps(document), encoding='utf-8')
    return tmp_path


def coco(folder: Path, **settings: Any) -> dict[str, Any]:
    return dict(
        type='CocoDataset',
        data_root=str(folder),
        ann_file='a.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=('thing',)),
        pipeline=PIPELINE,
        **settings,
    )


def build(dataset: dict[str, Any], **settings: Any) -> EfficientDetDataset:
    settings = {'image_size': (32, 40), 'seed': 7, **settings}
    wrapper: EfficientDetDataset = DATASETS.build(
        dict(type='EfficientDetDataset', dataset=dataset, **settings)
    )
    return wrapper


def content(sample: Any) -> tuple[bytes, list[list[float]]]:
    boxes = sample['data_samples'].gt_instances.bboxes.tensor
    return sample['inputs'].numpy().tobytes(), boxes.tolist()


def test_sample__a_function_of_seed_epoch_and_index(folder: Path) -> None:
    dataset, again = build(coco(folder)), build(coco(folder))
    keys = [(epoch, i) for epoch in range(2) for i in range(NUMBER)]
    forward = {key: content(dataset[key]) for key in keys}
    np.random.seed(99)
    random.seed(99)
    backward = {key: content(again[key]) for key in reversed(keys)}
    assert forward == backward
    assert len({image for image, _ in forward.values()}) == len(keys)
    other = build(coco(folder), seed=8)
    assert content(other[0, 0]) != forward[0, 0]
    assert content(dataset[0]) == forward[0, 0]  # a plain index is of epoch 0


def test_sample__same_from_workers(folder: Path) -> None:
    dataset = build(coco(folder))
    keys = [(3, i) for i in range(NUMBER)]
    alone = [content(dataset[key]) for key in keys]
    loader: DataLoader[Any] = DataLoader(
        dataset,  # type: ignore[arg-type]
        sampler=keys,
        num_workers=2,
        collate_fn=pseudo_collate,
    )
    loaded = [
        content({'inputs': batch['inputs'][0], 'data_samples': batch['data_samples'][0]})
        for batch in loader
    ]
    assert loaded == alone


def test_seeding__leaves_the_generators_as_they_were(folder: Path) -> None:
    dataset = build(coco(folder))
    np.random.seed(1)
    random.seed(1)
    expected = np.random.rand(), random.random()
    np.random.seed(1)
    random.seed(1)
    dataset[0, 1]
    assert (np.random.rand(), random.random()) == expected


def test_seeding__none_for_plain_indices_without_a_seed(folder: Path) -> None:
    dataset = build(coco(folder), seed=None)
    np.random.seed(5)
    first = content(dataset[0])
    assert content(dataset[0]) != first
    np.random.seed(5)
    assert content(dataset[0]) == first
    assert content(dataset[1, 0]) == content(dataset[1, 0])


def test_seeded__restores_after_an_error() -> None:
    np.random.seed(4)
    expected = np.random.rand()
    np.random.seed(4)
    with pytest.raises(RuntimeError), seeded((1, 2, 3)):
        raise RuntimeError
    assert np.random.rand() == expected


def wrap_concat(inner: dict[str, Any]) -> dict[str, Any]:
    return dict(type='ConcatDataset', datasets=[inner, inner])


def wrap_repeat(inner: dict[str, Any]) -> dict[str, Any]:
    return dict(type='RepeatDataset', times=2, dataset=inner)


@pytest.mark.parametrize(
    'wrap',
    [wrap_concat, wrap_repeat, lambda inner: wrap_repeat(wrap_concat(inner))],
    ids=['concat', 'repeat', 'both'],
)
def test_image_size__reaches_wrapped_datasets(folder: Path, wrap: Any) -> None:
    dataset = build(wrap(coco(folder)))
    assert len(dataset) % (2 * NUMBER) == 0
    assert dataset[0, len(dataset) - 1]['inputs'].shape == (3, 32, 40)
    assert dataset.metainfo['classes'] == ('thing',)


def test_image_size__reaches_nested_transforms(folder: Path) -> None:
    choice = dict(
        type='RandomChoice', transforms=[[dict(type='LetterBox')], [dict(type='ScaleJitterCrop')]]
    )
    inner = coco(folder)
    inner['pipeline'] = [*PIPELINE[:3], choice, PIPELINE[-1]]
    dataset = build(inner)
    assert {dataset[0, i]['inputs'].shape for i in range(NUMBER)} == {(3, 32, 40)}


def test_image_size__none_leaves_the_transforms_alone(folder: Path) -> None:
    inner = coco(folder)
    inner['pipeline'] = [
        {**step, 'image_size': (16, 24)} if step['type'] == 'ScaleJitterCrop' else step
        for step in PIPELINE
    ]
    assert build(inner, image_size=None)[0]['inputs'].shape == (3, 16, 24)
    assert build(inner)[0]['inputs'].shape == (3, 32, 40)


def test_pipeline__of_the_wrapper_is_that_of_all_inside(folder: Path) -> None:
    inner = coco(folder)
    del inner['pipeline']
    dataset = build(wrap_concat(inner), pipeline=PIPELINE)
    assert dataset[0]['inputs'].shape == (3, 32, 40)
    with pytest.raises(ConfigError, match=r'pipeline.*CocoDataset'):
        build(coco(folder), pipeline=PIPELINE)


def test_test_mode__reaches_all_inside(folder: Path) -> None:
    dataset = build(wrap_concat(coco(folder, test_mode=False)), test_mode=True)
    assert all(inner.test_mode for inner in dataset.dataset.datasets)


@pytest.mark.parametrize('wrap', [lambda inner: inner, wrap_concat, wrap_repeat])
def test_pipeline__mmdets_hook_switches_it(folder: Path, wrap: Any) -> None:
    dataset = build(wrap(coco(folder)))
    loader: DataLoader[Any] = DataLoader(
        dataset,  # type: ignore[arg-type]
        num_workers=1,
        persistent_workers=True,
        collate_fn=pseudo_collate,
    )
    switch = [step for step in PIPELINE if step['type'] not in ('RandomFlip', 'ScaleJitterCrop')]
    switch.insert(-1, dict(type='LetterBox'))
    hook = PipelineSwitchHook(switch_epoch=1, switch_pipeline=switch)
    names = []
    for epoch in range(3):
        hook.before_train_epoch(
            SimpleNamespace(
                epoch=epoch, train_dataloader=loader, logger=logging.getLogger(__name__)
            )
        )
        names.append([type(step).__name__ for step in dataset.pipeline.transforms])
        batch = next(iter(loader))
        assert batch['inputs'][0].shape == (3, 32, 40)
        # Only the letter box keeps an image's shape: 48x64 in 32x40 is 30x40.
        assert (batch['data_samples'][0].img_shape == (30, 40)) == (epoch > 0)
    assert ['LetterBox' in of_epoch for of_epoch in names] == [False, True, True]


@pytest.mark.parametrize('wrap', [lambda inner: inner, wrap_concat])
@pytest.mark.parametrize('damage', ['missing', 'cut', 'empty'])
def test_unreadable_image__named_in_one_line(folder: Path, damage: str, wrap: Any) -> None:
    dataset, path = build(wrap(coco(folder))), folder / '3.png'
    if damage == 'missing':
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:20] if damage == 'cut' else b'')
    with pytest.raises(DatasetError, match=r'3\.png:') as error:
        dataset[0, 3]
    assert '\n' not in str(error.value)
    dataset[0, 2]


def test_other_errors__are_not_hidden(folder: Path) -> None:
    dataset = build(coco(folder))

    def fail(_: Any) -> None:
        raise AssertionError('of a transform')

    dataset.dataset.pipeline.transforms.append(fail)
    with pytest.raises(AssertionError, match='of a transform'):
        dataset[0, 0]


def test_interface__of_the_inner_dataset(folder: Path) -> None:
    dataset = build(coco(folder))
    assert dataset.get_data_info(2)['img_path'].endswith('2.png')
    assert dataset.get_cat_ids(0) == [0, 0]
    assert len(dataset) == NUMBER
    with pytest.raises(AttributeError):
        dataset.no_such_thing  # noqa: B018
