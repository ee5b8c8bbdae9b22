"""The loader's benchmark on six small JPEGs, beside effdet's where effdet is installed."""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from benchmark_support import NEEDS_EFFDET, settings

from effdet_plugin import benchmark
from effdet_plugin.benchmark import loader
from effdet_plugin.benchmark.loader import workers_for
from effdet_plugin.cli.benchmark import add_arguments, complete, run
from effdet_plugin.errors import ConfigError

PREFIX = 'loader/b2/custom_coco'


@pytest.fixture
def data(tmp_path: Path) -> Path:
    images, annotations = [], []
    for i in range(6):
        name = f'{i}.jpg'
        height = 240 if i % 2 else 160
        noise = np.random.default_rng(i).integers(0, 255, (height, 240, 3), dtype=np.uint8)
        image = cv2.GaussianBlur(noise, (9, 9), 4)
        assert cv2.imwrite(str(tmp_path / name), image)
        images.append({'id': i, 'file_name': name, 'height': height, 'width': 240})
        box = {'bbox': [5, 6, 30, 30], 'area': 900, 'iscrowd': 0}
        annotations.append({'id': i, 'image_id': i, 'category_id': 1, **box})
    document = {
        'images': images,
        'annotations': annotations,
        'categories': [{'id': 1, 'name': 'a'}],
    }
    (tmp_path / 'instances.json').write_text(json.dumps(document), encoding='utf-8')
    return tmp_path


def given(data: Path, **changes: Any) -> benchmark.Settings:
    return settings(config='custom_coco', data=data, batches=[2], **changes)


def test_measure__parts_sum_up_and_workers_are_told(data: Path) -> None:
    report = benchmark.run('loader', given(data, step_ms=1.0, rounds=3))
    plain = report.to_dict()
    parts = {name for name in plain if name.startswith(f'{PREFIX}/')}
    names = ('sampling', 'decode', 'RGB', 'annotations', 'flip', 'resize and crop', 'pack')
    assert parts == {f'{PREFIX}/{part}' for part in (*names, 'collate')}
    whole = plain[PREFIX]
    summed = sum(plain[part]['cpu_ms'] for part in parts)
    assert summed == pytest.approx(whole['cpu_ms'], rel=0.5)
    assert whole['images_per_second'] == pytest.approx(1000 / whole['cpu_ms'], rel=0.01)
    expected = workers_for(2000, whole['images_per_second'])
    assert report.notes[0] == (
        f'{PREFIX}: a step of 2 images in 1 ms takes 2000.0 images/s: {expected} worker(s)'
    )
    assert {f'{PREFIX}, {name}' for name in ('reduced decoding', 'cached')} <= set(plain)


def test_measure__what_is_not_all_cached_has_no_row(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(loader.SWITCHES, 'cached', {'cache': 'ram:0.0003'})
    report = benchmark.run('loader', given(data, rounds=1))
    assert not any('cached' in name for name in report.to_dict())
    assert any(note.startswith('cached is left out') for note in report.notes)


@pytest.mark.parametrize('words', [['--data', 'x'], ['--step-ms', '3']])
def test_run__options_of_the_loader_only(words: list[str]) -> None:
    parser = ArgumentParser()
    add_arguments(parser)
    with pytest.raises(ConfigError, match='are for the mode loader'):
        run(parser.parse_args(['train', 'd0_coco', 'none', *words]))


def test_workers_for__never_none() -> None:
    assert [workers_for(rate, 100.0) for rate in (1, 100, 101, 1000)] == [1, 1, 2, 10]


def test_measure__effdet_reads_the_same_images(data: Path) -> None:
    pytest.importorskip('effdet', reason=NEEDS_EFFDET)
    plain = benchmark.run('loader', given(data, against='effdet', rounds=1)).to_dict()
    assert plain[PREFIX]['against'] == f'{PREFIX}, effdet'
    assert plain[PREFIX]['speedup'] > 0
    assert f'{PREFIX}, effdet/resize and crop' in plain
    tall = ['train_dataloader.dataset.dataset.filter_cfg.min_size=200']
    with pytest.raises(ConfigError, match='images here and'):
        benchmark.run('loader', given(data, against='effdet', options=tall))


def test_measure__needs_a_config() -> None:
    with pytest.raises(ConfigError, match='give a CONFIG'):
        benchmark.run('loader', settings(config=None))
    with pytest.raises(ConfigError, match='--step-ms'):
        benchmark.run('loader', settings(step_ms=0.0))


def test_complete__loader_needs_no_model() -> None:
    words = ['loader', '--batch', '8', 'd0_coco', '--json', 'f.json']
    assert complete(words) == [*words[:4], 'none', *words[4:]]
    first = ['--json', 'f.json', 'loader', 'd0_coco']
    assert complete(first) == [*first, 'none']
    for same in (['loader', 'd0_coco', 'none'], ['train', 'd0_coco', 'none'], ['loader']):
        assert complete(same) == same
