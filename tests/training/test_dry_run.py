"""A dry run: what it says of the data, and that it leaves everything as it is."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from effdet_plugin.config.dataset_nodes import dataset_nodes
from effdet_plugin.errors import ConfigError, UserError
from effdet_plugin.models.backbones import timm_backbone
from effdet_plugin.training import TrainSettings, dry_run
from effdet_plugin.training.dry_run import shrink
from support import REPOSITORY, shared_dir

CONFIGS = REPOSITORY / 'configs' / 'efficientdet'
CLASSES = ('circle', 'square')
# One step of training is part of a dry run; here the data counts.
TINY = {
    'model.backbone.model_name': 'test_efficientnet',
    'model.backbone.pretrained': False,
    'model.neck.in_channels': [32, 48, 64],
    'model.neck.num_cells': 1,
    'model.bbox_head.stacked_convs': 1,
}
Options = dict[str, Any]
Hashes = Callable[[Path], dict[str, str]]


def test_dry_run__configured_data(
    options: Options, settings: TrainSettings, data: Path, run_dir: Path, hashes: Hashes
) -> None:
    before = hashes(data)
    cache = run_dir.with_name('cache')
    summary = dry_run(replace(settings, data=None, cfg_options=options, cache=str(cache)))
    line = f'decoded images are kept in {cache}: at most 10 GB'
    counts = dict(train_images=4, val_images=3, boxes=7)
    assert summary == dict(classes=list(CLASSES), **counts, remarks=[line])
    assert hashes(data) == before
    assert not run_dir.exists()
    assert not cache.exists()


def test_dry_run__refuses_a_pipeline_that_cannot_be_cached(settings: TrainSettings) -> None:
    def shrunk(cfg: Config, folder: Path) -> None:
        shrink(cfg, folder)
        for node in dataset_nodes(cfg.train_dataloader.dataset):
            if node.get('pipeline'):
                node.pipeline[0].to_float32 = True

    module = sys.modules['effdet_plugin.training.dry_run']
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'shrink', shrunk)
        with pytest.raises(ConfigError, match='cache and reduced_decoding need a pipeline'):
            dry_run(replace(settings, cache='ram'))


def test_dry_run__leaves_the_work_dir_and_the_weights_alone(
    settings: TrainSettings,
    run_dir: Path,
    small: Options,
    monkeypatch: pytest.MonkeyPatch,
    hashes: Hashes,
) -> None:
    """It refuses another run's folder, too, and touches nothing there with --overwrite."""
    run_dir.mkdir()
    (run_dir / 'epoch_1.pth').write_bytes(b'weights')
    (run_dir / 'config.json').write_text('{"model": {"type": "Other"}}')
    monkeypatch.setattr(timm_backbone, 'load_pretrained', lambda *_: pytest.fail('fetches'))
    options = small | {'model.backbone.pretrained': True}
    settings = replace(settings, cfg_options=options)
    before = hashes(run_dir)
    with pytest.raises(UserError, match=r'config\.json: .*--overwrite'):
        dry_run(settings)
    dry_run(replace(settings, overwrite=True))
    assert hashes(run_dir) == before


def _layouts() -> list[dict[str, Any]]:
    shared = shared_dir()
    path = shared / 'data/layouts/expected.json' if shared else Path('absent')
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else []


@pytest.mark.parametrize('expected', _layouts(), ids=lambda expected: expected['folder'])
def test_dry_run__what_labelling_tools_write(
    expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashes: Hashes
) -> None:
    # A runner formats its config three times and its datasets collect garbage: most of the time.
    monkeypatch.setattr(Config, 'pretty_text', property(lambda _: ''))
    monkeypatch.setattr('gc.collect', lambda *_: 0)
    shared = shared_dir()
    assert shared is not None
    folder = shared / 'data' / 'layouts' / expected['folder']
    before = hashes(folder)
    settings = TrainSettings(
        CONFIGS / 'custom_coco.py', data=folder, work_dir=tmp_path / 'run', cfg_options=TINY
    )
    summary: dict[str, Any]
    try:
        summary = dry_run(settings)
        said = '\n'.join(summary['remarks'])
    except UserError as error:
        summary, said = {}, str(error)
    assert expected['reads'] in ('either', bool(summary)), said
    for words in expected['must_say']:
        assert any(word.lower() in said.lower() for word in words), said
    if summary and expected['classes'] is not None:
        train, val = summary['train_images'], summary['val_images']
        assert train + val == expected['train_images'] + (expected['val_images'] or 0)
        assert expected['val_images'] in (None, val)
        assert summary['classes'] == expected['classes']
        assert summary['boxes'] == expected['boxes']
    assert hashes(folder) == before
    assert list(tmp_path.iterdir()) == []
