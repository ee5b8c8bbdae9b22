"""What a training says before, while and after it trains, and the report that it leaves."""

import logging
import re
import sys
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from effdet_plugin.engine import ProgressBarHook
from effdet_plugin.report import Detections
from effdet_plugin.training import TrainSettings, announce, train
from effdet_plugin.training.announce import Row, count_boxes, in_time, table, weights_row
from effdet_plugin.training.console import plain_console, without_noise
from effdet_plugin.training.reporting import command
from effdet_plugin.training.speaking import SpeakHook
from support import REPOSITORY

CONFIG = REPOSITORY / 'configs' / 'efficientdet' / 'custom_coco.py'


@pytest.fixture(scope='module')
def said(
    data: Path, small: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """Work dir and console of a training of two epochs."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp('speaking') / 'run'
    options = small | {'train_cfg.max_epochs': 2, 'report': True}
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        train(TrainSettings(CONFIG, data, folder, image_size=64, cfg_options=options, seed=0))
    return folder, out.getvalue()


def test_console__before_the_first_step(said: tuple[Path, str]) -> None:
    folder, text = said
    start = text.split('Epoch 1')[0]
    for row in (
        r'model +EfficientDet: tf_efficientnet_lite0, BiFPN, EfficientDetHead \([\d,]+ param',
        r'weights +random',
        r'training +4 images, 4 boxes',
        r'validation +3 images, 3 boxes',
        r'classes +2 \(circle, square\)',
        r'input +64x64 \(letterbox\)',
        r'epochs +2 \(2 steps each, 4 in all; as asked for\)',
        r'batch +2 \(as asked for\)',
        r'rate +0.001 \(AdamW, 0.4 epochs of warm-up, then cosine\)',
        r'device +\w+',
        r'precision +b?float(32|16), channels_last',
        rf'results +{re.escape(str(folder))}',
    ):
        assert re.search(row, start, re.MULTILINE), row


def test_precision__advises_mixed_precision_where_the_cpu_has_units_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(announce, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(announce, 'has_bfloat16_units', lambda: True)
    runner: Any = SimpleNamespace(optim_wrapper=None, cfg=Config(dict(model={})))
    assert announce._precision(runner) == (
        'precision',
        'float32',
        'this CPU has bfloat16 units: --amp is faster',
    )
    runner.optim_wrapper = SimpleNamespace(cast_dtype=torch.bfloat16)
    why = 'this CPU has bfloat16 units: --no-amp trains in float32'
    assert announce._precision(runner) == ('precision', 'bfloat16', why)


def test_console__while_it_trains_and_at_the_end(said: tuple[Path, str]) -> None:
    folder, text = said
    assert len(re.findall(r'^Epoch \d: AP [\d.]+, AP50 [\d.]+', text, re.MULTILINE)) == 2
    assert len(re.findall(r'^Estimated time: about .* s a step\)$', text, re.MULTILINE)) == 1
    best = re.search(r'^Best epoch (\d): AP ([\d.]+), AP50 [\d.]+ on 3 images$', text, re.MULTILINE)
    assert best
    assert re.search(r'^  circle +[\d.]+ +[\d.]+ +\d$', text, re.MULTILINE)
    checkpoint = next(folder.glob('best_*.pth'))
    assert best[1] in checkpoint.stem
    assert f'checkpoint  {checkpoint}' in text
    assert f'report      {folder}/report.html' in text
    assert f'predict {checkpoint} IMAGE_OR_FOLDER' in text
    assert f'--format onnx --out {checkpoint.with_suffix(".onnx")}' in text


def test_console__has_no_noise(said: tuple[Path, str]) -> None:
    text = said[1]
    for noise in (
        'FileClient',
        'HardDiskBackend',
        'mmengine - ',
        'loading annotations',
        'Exp name',
    ):
        assert noise not in text, noise
    log = next(said[0].glob('2*/*.log')).read_text()
    assert 'FileClient' not in log
    assert 'mmengine - INFO' in log
    assert 'Epoch(val)' in log


def test_report__of_the_best_epoch(said: tuple[Path, str]) -> None:
    folder, text = said
    page = (folder / 'report.html').read_text()
    assert (folder / 'report.png').stat().st_size > 10_000
    assert 'AP over epochs' in page
    assert 'as asked for' in page
    kept = Detections.load(folder / 'best_detections.npz')
    assert kept is not None
    assert f'Best epoch {kept[1]}: AP {kept[2]:.3f}' in text
    # The training boxes of each class, by name.
    assert re.search(r'<td>circle</td>.*?<td>2</td></tr>', page)


def test_numbers__beside_the_losses(said: tuple[Path, str]) -> None:
    scalars = next(said[0].glob('2*/vis_data/scalars.json')).read_text()
    assert scalars.count('"gradient_norm"') == 2
    levels = [int(float(v)) for v in re.findall(r'"positives/P\d": ([\d.]+)', scalars)]
    assert len(levels) == 2 * 5
    assert sum(levels) > 0


@pytest.mark.skipif(find_spec('tensorboard') is None, reason='needs tensorboard')
def test_tensorboard__where_it_is_installed(said: tuple[Path, str]) -> None:
    module = import_module('tensorboard.backend.event_processing.event_accumulator')
    events = module.EventAccumulator(str(next(said[0].glob('2*/vis_data'))))
    events.Reload()
    tags = events.Tags()
    assert {'loss', 'lr', 'gradient_norm', 'positives/P3', 'coco/bbox_mAP'} <= {*tags['scalars']}
    assert 'val/0' in tags['images']


def test_resumed__keeps_the_best_of_the_first_start(
    data: Path, small: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = small | {'report': False}
    first = TrainSettings(CONFIG, data, tmp_path / 'run', image_size=64, cfg_options=options)
    train(first)
    path = tmp_path / 'run' / 'best_detections.npz'
    found, epoch, _ = Detections.load(path) or pytest.fail('not written')
    found.save(path, epoch, 2.0)  # nothing is better
    capsys.readouterr()
    longer = options | {'train_cfg.max_epochs': 2, 'report': True}
    train(replace(first, cfg_options=longer, resume='auto'))
    text = capsys.readouterr().out
    assert '(best: 2.000)' in text
    assert 'Best epoch 1:' in text
    assert 'the run is resumed' in text
    assert 'run: epoch 1' in (tmp_path / 'run' / 'report.html').read_text()


def test_evaluation__by_another_evaluator_is_told_too() -> None:
    told: list[str] = []
    runner = cast(Runner, SimpleNamespace(epoch=3, logger=SimpleNamespace(info=told.append)))
    hook = SpeakHook()
    hook.after_val_epoch(runner, {'pascal_voc/mAP': 0.51234, 'pascal_voc/AP50': 0.5})
    assert told == ['Epoch 3: pascal_voc/mAP 0.512, pascal_voc/AP50 0.500']
    for ap, words in ((0.25, 'the best so far'), (0.125, '(best: 0.250)')):
        hook.after_val_epoch(runner, {'coco/bbox_mAP': ap, 'coco/bbox_mAP_50': 0.5})
        assert told[-1].startswith(f'Epoch 3: AP {ap:.3f}, AP50 0.500')
        assert words in told[-1]
    assert hook.best == (3, 0.25)


def test_table_and_time() -> None:
    rows = [Row('a', '1'), Row('long', '2', 'why')]
    assert table(rows) == '  a     1\n  long  2 (why)'
    assert [in_time(s) for s in (40, 725, 12_010)] == ['40 s', '12 min', '3 h 20 min']


@pytest.mark.parametrize(
    ('backbone', 'words'),
    [
        (dict(pretrained=True), ('ImageNet', 'download')),
        (dict(pretrained='package'), ('ImageNet', 'package')),
        (dict(pretrained='own.pth'), ('own.pth',)),
        (dict(init_cfg=dict(checkpoint='b.pth')), ('b.pth',)),
        (dict(pretrained=False), ('random',)),
    ],
)
def test_weights(backbone: dict[str, Any], words: tuple[str, ...]) -> None:
    row = weights_row(Config(dict(model=dict(backbone=backbone))), False, Path('none'))
    assert all(word in row.value for word in words)


def test_weights__of_a_checkpoint() -> None:
    cfg = Config(dict(model=dict(backbone=dict(pretrained=True)), resume=False))
    assert weights_row(cfg, True, Path('coco.pth'))[1:] == ('coco.pth', 'load_from of the config')


def test_count_boxes__of_a_large_dataset_from_some_of_its_images() -> None:
    class Many:
        read = 0

        def __len__(self) -> int:
            return 118_000

        def get_data_info(self, index: int) -> dict[str, Any]:
            self.read += 1
            return dict(instances=[{}, {}, dict(ignore_flag=1)])

    many = Many()
    assert count_boxes(many) == 'about 236,000'
    assert many.read <= 5_000


@pytest.mark.parametrize(
    ('start', 'line'),
    [
        ('tools/train.py', 'tools/infer.py m.pth'),
        ('{path}/efficientdet', 'efficientdet predict m.pth'),
        ('/elsewhere/efficientdet', '/elsewhere/efficientdet predict m.pth'),
        ('/x/effdet_plugin/__main__.py', 'python -m effdet_plugin predict m.pth'),
        ('own.py', 'efficientdet predict m.pth'),
    ],
)
def test_command__as_this_one_was_started(
    start: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / 'efficientdet'
    script.write_text('#!/bin/sh\n')
    script.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setattr('sys.argv', [start.format(path=tmp_path)])
    assert command('predict', Path('m.pth')) == line
    assert command('predict', 'a b.pth').endswith(" 'a b.pth'")


@pytest.mark.parametrize('is_terminal', [True, False])
def test_plain_console(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, 'isatty', lambda: is_terminal)
    logger = MMLogger('plain', log_level='INFO')
    hooks: list[Any] = []
    runner = cast(Runner, SimpleNamespace(logger=logger, hooks=hooks, register_hook=hooks.append))
    formatter, filters = logger.handlers[0].formatter, [*logger.handlers[0].filters]
    try:
        with without_noise(runner), plain_console(runner):
            logger.info('Epoch(train)  [1][10/50]  lr: 1')
            logger.info('Epoch(val) [1][2/2]  coco/bbox_mAP: 0.1')
            logger.info('Epoch 1: AP 0.100')
            logger.warning('a worker is slow')
            logger.warning('"FileClient" will be deprecated in future')
        shown = capsys.readouterr().out.splitlines()
        steps = [] if is_terminal else ['Epoch(train)  [1][10/50]  lr: 1']
        assert shown == [*steps, 'Epoch 1: AP 0.100', 'WARNING: a worker is slow']
        assert [type(hook) for hook in hooks] == [ProgressBarHook] * is_terminal
        assert logger.handlers[0].formatter is formatter
        assert logger.handlers[0].filters == filters
    finally:
        logging.Logger.manager.loggerDict.pop('plain', None)
