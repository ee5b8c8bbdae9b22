"""Trials share one recipe, are run once, and are plotted."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from effdet_plugin.ablation import (
    Trial,
    TrialSettings,
    plot_quality,
    quality_table,
    run_trials,
    trials,
)
from effdet_plugin.costs import count_rows
from effdet_plugin.errors import ConfigError
from effdet_plugin.evaluation import coco_twelve
from support import REPOSITORY

CONFIG = REPOSITORY / 'configs' / 'ablation' / 'lite0_bifpn.py'
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
SMALL = (
    'train_dataloader.batch_size=2',
    *(f'{loader}.num_workers=0' for loader in LOADERS),
    *(f'{loader}.persistent_workers=False' for loader in LOADERS),
    'model.backbone.pretrained=False',
    'model.neck.num_cells=1',
)


def make_data(folder: Path, splits: Sequence[str] = ('train', 'val')) -> Path:
    """COCO data of three images, the same for each split."""
    boxes = dict(bbox=[8, 8, 40, 30], area=1200, iscrowd=0, category_id=1)
    document = dict(
        images=[dict(id=i, file_name=f'{i}.png', width=64, height=64) for i in range(3)],
        annotations=[dict(id=i, image_id=i, **boxes) for i in range(3)],
        categories=[dict(id=1, name='box')],
    )
    folder.mkdir()
    for i in range(3):
        image = np.full((64, 64, 3), 40 + 10 * i, np.uint8)
        image[8:38, 8:48] = 200
        cv2.imwrite(str(folder / f'{i}.png'), image)
    for split in splits:
        (folder / f'{split}.json').write_text(json.dumps(document))
    return folder


def settings_of(folder: Path) -> TrialSettings:
    data = folder / 'data' if (folder / 'data').exists() else make_data(folder / 'data')
    return TrialSettings(
        [CONFIG],
        data,
        folder / 'trials',
        seeds=[0],
        epochs=1,
        image_size=64,
        options=SMALL,
    )


def finished(settings: TrialSettings) -> list[Trial]:
    paths = sorted(settings.work_dir.rglob(trials.RESULT_NAME))
    return [Trial(**json.loads(path.read_text())) for path in paths]


def test_run_trials__trains_evaluates_and_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path)
    first = list(run_trials(settings))
    assert [(trial.name, trial.seed) for trial in first] == [('lite0_bifpn', 0)]
    assert 0 <= first[0].ap <= first[0].ap50 <= 1
    (row,) = count_rows([CONFIG], 1, 64, SMALL)  # the data has one class
    assert first[0].parameters == row.costs.parameters
    assert first[0].multiply_adds == row.costs.multiply_adds
    monkeypatch.setattr(trials, 'train', lambda settings: pytest.fail('trained again'))
    assert list(run_trials(settings)) == first
    assert finished(settings) == first
    with pytest.raises(ConfigError, match=r'max_epochs=1.*max_epochs=2.*--work-dir'):
        list(run_trials(replace(settings, epochs=2)))


def test_run_trials__a_config_or_fusion_that_was_edited_is_another_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(trials, '_run', lambda *_: None)
    fusion, config = tmp_path / 'edited_fusion.py', tmp_path / 'edited.py'
    fusion.write_text('SCALE = 1\n')
    imports = "custom_imports = dict(imports=['effdet_plugin', 'edited_fusion'])\n"
    config.write_text(f"_base_ = '{CONFIG}'\n{imports}")
    settings = replace(settings_of(tmp_path), configs=[config])
    list(run_trials(settings))
    list(run_trials(settings))
    for path in (fusion, config):
        before = path.read_text()
        path.write_text(f'{before}other = 2\n')
        with pytest.raises(ConfigError, match=r'edited\.py.*--work-dir'):
            list(run_trials(settings))
        path.write_text(before)


@pytest.mark.parametrize(
    ('splits', 'tested'),
    [(['train'], 'val.json'), (['train', 'test'], 'test.json')],
)
def test_run_trials__evaluates_what_was_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, splits: list[str], tested: str
) -> None:
    seen: list[list[str]] = []
    evaluate_results = coco_twelve.evaluate_results

    def note(coco: COCO, rows: Any, image_ids: Sequence[int], *others: Any) -> Any:
        seen.append([image['file_name'] for image in coco.loadImgs(image_ids)])
        return evaluate_results(coco, rows, image_ids, *others)

    monkeypatch.setattr(coco_twelve, 'evaluate_results', note)
    make_data(tmp_path / 'data', splits)
    settings = settings_of(tmp_path)
    list(run_trials(settings))
    folder = settings.work_dir / CONFIG.stem / 'seed0' / 'data'
    names = {
        path.name: [image['file_name'] for image in json.loads(path.read_text())['images']]
        for path in folder.iterdir()
    }
    assert seen == [names[tested]]
    if splits == ['train']:
        assert len(seen[0]) == 1
        assert not {*seen[0]} & {*names['train.json']}


def test_run_trials__an_interrupted_one_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(trials, 'evaluate', lambda settings: pytest.fail('killed here'))
        with pytest.raises(pytest.fail.Exception, match='killed here'):
            list(run_trials(settings))
    assert finished(settings) == []
    [trial] = run_trials(settings)
    assert finished(settings) == [trial]
    steps = [
        line
        for path in settings.work_dir.rglob('vis_data/scalars.json')
        for line in path.read_text().splitlines()
        if '"loss"' in line
    ]
    assert len(steps) == 1  # the finished epoch was not trained again


def test_quality__table_and_plot(tmp_path: Path) -> None:
    trial = Trial('a', 0, ap=0.3, ap50=0.6, parameters=2_000_000, multiply_adds=10**9, minutes=2.0)
    others = [
        trial,
        replace(trial, seed=1, ap=0.4),
        replace(trial, name='b', multiply_adds=5 * 10**8),
    ]
    lines = quality_table(others)
    assert [line[0] for line in lines] == ['config', 'b', 'a']
    assert lines[2][3:6] == ['2', '0.350', '0.300 0.400']
    plot_quality(others, tmp_path / 'plot.png')
    assert (tmp_path / 'plot.png').read_bytes().startswith(b'\x89PNG')
