"""Augmentation by settings of the dataset: where the steps are put, and what refuses them."""

from typing import Any

import numpy as np
import pytest
from mmdet.registry import DATASETS

from effdet_plugin.errors import ConfigError
from support import REPOSITORY

READ: list[dict[str, Any]] = [
    dict(type='LoadImageFromFile'),
    dict(type='ToRGB'),
    dict(type='LoadAnnotations', with_bbox=True),
]
REST: list[dict[str, Any]] = [
    dict(type='RandomFlip', prob=0.5),
    dict(type='ScaleJitterCrop', ratio_range=(0.8, 1.25)),
    dict(type='PackDetInputs'),
]


def build(pipeline: list[dict[str, Any]] | None = None, **settings: Any) -> Any:
    folder = REPOSITORY / 'tests' / 'data' / 'bccd_pair'
    source = dict(
        type='CocoDataset',
        metainfo=dict(classes=('RBC', 'WBC', 'Platelets')),
        ann_file=str(folder / 'annotations.json'),
        data_prefix=dict(img=str(folder)),
        pipeline=pipeline or [*READ, *REST],
    )
    given = dict(image_size=(96, 128), seed=3, dataset=source) | settings
    return DATASETS.build(dict(type='EfficientDetDataset', **given))


def names(dataset: Any) -> list[str]:
    return [type(step).__name__ for step in dataset.pipeline.transforms]


def test_switches__are_put_behind_reading() -> None:
    plain = names(build())
    assert plain == [step['type'] for step in (*READ, *REST)]
    both = ['GridMask', 'DetectionAutoAugment']
    assert names(build(grid_mask=0.5, autoaugment='v2')) == [*plain[:3], *both, *plain[3:]]
    assert names(build([READ[0], READ[2], READ[1], *REST], autoaugment='v0'))[2:4] == [
        'ToRGB',
        'DetectionAutoAugment',
    ]
    written = [*READ, dict(type='GridMask', prob=0.1), *REST]
    found = build(written, grid_mask=0.5)
    assert names(found).count('GridMask') == 1
    assert found.pipeline.transforms[3].prob == 0.1


@pytest.mark.parametrize('cache', [None, 'ram:0.1'])
def test_switches__a_function_of_seed_epoch_and_index(cache: str | None) -> None:
    settings = dict(grid_mask=0.7, autoaugment='v2', mosaic=0.5, cache=cache)
    one, other, plain = build(**settings), build(**settings), build()
    keys = [(epoch, i) for epoch in range(6) for i in range(2)]
    different = 0
    for key in keys:
        first, second = one[key], other[key]
        assert (first['inputs'] == second['inputs']).all()
        boxes = [x['data_samples'].gt_instances.bboxes.tensor.tolist() for x in (first, second)]
        assert boxes[0] == boxes[1]
        different += int(not np.array_equal(first['inputs'], plain[key]['inputs']))
    assert different > 6


def test_switches__a_pipeline_that_takes_its_place_has_none() -> None:
    dataset = build(grid_mask=0.5, autoaugment='v2', mosaic=1.0)
    dataset.pipeline = build().pipeline
    assert names(dataset) == names(build())
    assert dataset[0, 0]['inputs'].shape == (3, 96, 128)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'grid_mask': 3}, 'prob=3; give a share'),
        ({'autoaugment': 'v7'}, "policy='v7'; choose one of"),
        ({'autoaugment': 'v0', 'reduced_decoding': True}, 'DetectionAutoAugment stands before'),
        ({'autoaugment': 'v0', 'test_mode': True}, 'autoaugment is for training'),
        ({'grid_mask': 0.5, 'pipeline': None}, 'this pipeline has none'),
    ],
)
def test_switches__refused(settings: dict[str, Any], message: str) -> None:
    steps = None
    if 'pipeline' in settings:
        settings = {key: value for key, value in settings.items() if key != 'pipeline'}
        steps = [READ[0], *REST]
    with pytest.raises(ConfigError, match=message):
        build(steps, **settings)


def test_grid_mask__with_reduced_decoding() -> None:
    dataset = build(grid_mask=1.0, reduced_decoding=True)
    assert (dataset[0, 0]['inputs'] == 0).any()
