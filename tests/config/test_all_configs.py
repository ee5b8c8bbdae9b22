"""Every config of ours loads, binds, builds, dumps, and costs what the reference's network does."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from effdet_plugin.config import find_sizes, load
from effdet_plugin.costs import REFERENCE, build_on_meta, count_costs
from support import REPOSITORY, formatting_configs, oracle_file

FOLDER = REPOSITORY / 'configs' / 'efficientdet'
CONFIGS = sorted(FOLDER.glob('*.py'))
# yapf takes a second for each; these are the longest ones of their kinds.
FORMATTED = ('custom_coco', 'd0_voc2012', 'd7x_coco')
# Our parts by the oracle's names.
PARTS = {
    'backbone': 'backbone',
    'extra_levels': 'resample_p6',
    'bifpn': 'fpn_cells',
    'class_head': 'class_net',
    'box_head': 'box_net',
}


def _id(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize('path', CONFIGS, ids=_id)
def test_config__binds_and_builds(path: Path) -> None:
    cfg = load(path)
    assert cfg.custom_imports['imports'] == ['effdet_plugin']
    sizes = {place: tuple(size) for place, size in find_sizes(cfg)}
    assert set(sizes.values()) == {tuple(cfg.image_size)}
    assert {f'{name}_dataloader' for name in ('train', 'val', 'test')} <= {
        place.split('.')[0] for place in sizes
    }
    model: Any = build_on_meta(cfg.model)
    assert model.backbone.out_channels == cfg.model.neck.in_channels


@pytest.mark.parametrize('path', CONFIGS, ids=_id)
def test_config__dumps_and_reloads(path: Path, tmp_path: Path) -> None:
    cfg = Config.fromfile(path)
    with formatting_configs() if path.stem in FORMATTED else nullcontext():
        text = cfg.pretty_text
    (tmp_path / 'dumped.py').write_text(text, encoding='utf-8')
    again = Config.fromfile(tmp_path / 'dumped.py')
    assert again.to_dict() == cfg.to_dict()


@pytest.mark.parametrize('name', REFERENCE)
def test_config__costs_of_the_reference(name: str) -> None:
    cfg = load(FOLDER / f'{name}_coco.py')
    expected = json.loads(oracle_file('parameters.json').read_text())[f'efficientdet-{name}']
    costs = count_costs(build_on_meta(cfg.model, num_classes=90), cfg.image_size)
    assert costs.parameters == expected['trainable'] == REFERENCE[name].parameters
    assert costs.with_statistics == expected['with_moving_statistics']
    assert costs.multiply_adds == expected['conv_macs'] == REFERENCE[name].multiply_adds
    for ours, theirs in PARTS.items():
        assert costs.parameters_by_part[ours] == expected['parts'][theirs], ours
        assert costs.multiply_adds_by_part[ours] == expected['conv_macs_parts'][theirs], ours


@pytest.mark.parametrize('name', REFERENCE)
def test_config__head_states_its_costs(name: str) -> None:
    """The comment at the top of a config says what the table says."""
    text = (FOLDER / f'{name}_coco.py').read_text(encoding='utf-8')
    comment = text.split('\n_base_')[0]
    published = REFERENCE[name]
    assert f'{published.parameters:,} parameters' in comment
    assert f'{published.multiply_adds / 1e9:.2f}G' in comment
    assert f'{published.ap:g}' in comment or f'{published.ap:.2f}' in comment
    assert f'tools/train.py configs/efficientdet/{name}_coco.py' in comment


def _child(tmp_path: Path, text: str) -> Config:
    path = tmp_path / 'child.py'
    path.write_text(f"_base_ = ['{(FOLDER / 'd1_coco.py').as_posix()}']\n{text}", encoding='utf-8')
    return load(path)


def test_child__sets_the_size_in_three_plain_lines(tmp_path: Path) -> None:
    cfg = _child(
        tmp_path,
        'image_size = (384, 512)\n'
        'train_dataloader = dict(dataset=dict(image_size=image_size))\n'
        'val_dataloader = test_dataloader = dict(dataset=dict(image_size=image_size))\n',
    )
    assert {tuple(size) for _, size in find_sizes(cfg)} == {(384, 512)}


def test_image_size__reaches_the_transforms_of_a_wrapped_dataset(tmp_path: Path) -> None:
    """From the command line's text to the sizes that the built transforms work with."""
    init_default_scope('mmdet')
    images = [dict(id=1, file_name='a.jpg', height=9, width=9)]
    annotations = dict(images=images, annotations=[], categories=[dict(id=1, name='person')])
    (tmp_path / 'one.json').write_text(json.dumps(annotations))
    cfg = load(FOLDER / 'd0_coco.py', image_size='192x128')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        node: Any = dict(type='RepeatDataset', times=2, dataset=loader.dataset)
        inner = loader.dataset.dataset
        inner.update(data_root='', ann_file=str(tmp_path / 'one.json'))
        wrapper = DATASETS.build(node).dataset
        transforms = wrapper.dataset.pipeline.transforms
        sizes = [t.image_size for t in transforms if hasattr(t, 'image_size')]
        assert sizes == [(128, 192)]
