"""One walker of dataset nodes: wrappers of one and of several, at any depth."""

from typing import Any

import pytest
from mmengine.config import ConfigDict

from effdet_plugin.config import size_pipelines
from effdet_plugin.config.dataset_nodes import class_names, dataset_nodes, map_sources, source_nodes


def coco(name: str, **more: Any) -> dict[str, Any]:
    return dict(type='CocoDataset', ann_file=name, **more)


@pytest.fixture
def wrapped() -> ConfigDict:
    concat = dict(type='ConcatDataset', datasets=[coco('a'), coco('b')])
    repeat = dict(type='RepeatDataset', times=2, dataset=concat)
    return ConfigDict(dict(type='EfficientDetDataset', dataset=repeat))


def test_dataset_nodes__outermost_first(wrapped: ConfigDict) -> None:
    types = [node.type for node in dataset_nodes(wrapped)]
    assert types == [
        'EfficientDetDataset', 'RepeatDataset', 'ConcatDataset', 'CocoDataset', 'CocoDataset',
    ]  # fmt: skip
    assert list(dataset_nodes(None)) == []


def test_source_nodes__are_those_that_read_files(wrapped: ConfigDict) -> None:
    assert [node.ann_file for node in source_nodes(wrapped)] == ['a', 'b']


def test_map_sources__copies(wrapped: ConfigDict) -> None:
    before = wrapped.to_dict()
    changed = map_sources(wrapped, lambda node: {**node, 'ann_file': f'{node["ann_file"]}2'})
    assert [node['ann_file'] for node in source_nodes(changed)] == ['a2', 'b2']
    assert wrapped.to_dict() == before
    assert changed['dataset']['times'] == 2


@pytest.mark.parametrize(
    ('node', 'classes'),
    [
        (coco('a', metainfo=dict(classes=('x', 'y'))), ('x', 'y')),
        (dict(type='RepeatDataset', dataset=coco('a', metainfo=dict(classes='x'))), ('x',)),
        (dict(type='ConcatDataset', datasets=[dict(type='VOCDataset')]), 20),
        (None, ()),
    ],
)
def test_class_names(node: Any, classes: Any) -> None:
    found = class_names(node)
    assert (len(found) if isinstance(classes, int) else found) == classes


def test_size_pipelines__outermost_size_decides() -> None:
    """As when the datasets are built: the outer one sets its size last."""
    choice = dict(type='RandomChoice', transforms=[[dict(type='ScaleJitterCrop')]])
    steps = [dict(type='LoadImageFromFile'), dict(type='LetterBox', image_size=(8, 8)), choice]
    inner = dict(type='EfficientDetDataset', image_size=(16, 24), dataset=coco('a', pipeline=steps))
    node = ConfigDict(
        type='ConcatDataset',
        datasets=[
            inner,
            dict(type='EfficientDetDataset', image_size=(32, 48), dataset=inner),
            coco('b', pipeline=[dict(type='LetterBox')]),
        ],
    )
    size_pipelines(node)
    first, second, third = [one.pipeline for one in source_nodes(node)]
    for size, pipeline in [((16, 24), first), ((32, 48), second)]:
        assert 'image_size' not in pipeline[0]
        assert pipeline[1].image_size == pipeline[2].transforms[0][0].image_size == size
    assert third == [dict(type='LetterBox')]
