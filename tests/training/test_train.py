"""A training as the command line starts it: switches, work dir, resuming, dry run."""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from effdet_plugin.errors import CheckpointError, ConfigError, UserError
from effdet_plugin.models.backbones import timm_backbone
from effdet_plugin.training import TrainSettings, dry_run, prepare, train
from effdet_plugin.training.running import build_runner, one_line_errors
from support import REPOSITORY, shared_dir

CONFIGS = REPOSITORY / 'configs' / 'efficientdet'
CLASSES = ('circle', 'square')
Options = dict[str, Any]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / 'run'


@pytest.fixture
def settings(data: Path, run_dir: Path, small: Options) -> TrainSettings:
    return TrainSettings(
        CONFIGS / 'lite0_coco.py',
        data=data,
        work_dir=run_dir,
        image_size=64,
        cfg_options=small,
        seed=3,
    )


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob('*') if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_train__own_data_then_resume(
    settings: TrainSettings,
    data: Path,
    run_dir: Path,
    small: Options,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = _hashes(data)
    train(settings)
    checkpoint = torch.load(run_dir / 'epoch_1.pth', weights_only=True)
    assert tuple(checkpoint['meta']['dataset_meta']['classes']) == CLASSES
    assert checkpoint['state_dict']['bbox_head.cls_tower.predict.pointwise.weight'].shape[0] == 18
    assert _hashes(data) == before

    longer = small | {'train_cfg.max_epochs': 2}
    with pytest.raises(UserError, match=r'config\.json: train_cfg\.max_epochs'):
        train(replace(settings, cfg_options=longer))
    read = []
    torch_load = torch.load
    monkeypatch.setattr(torch, 'load', lambda *a, **k: (read.append(a[0]), torch_load(*a, **k))[1])
    train(replace(settings, cfg_options=longer, resume='auto'))
    assert read == [run_dir / 'epoch_1.pth'], 'the check reads it, and the runner takes that'
    resumed = torch_load(run_dir / 'epoch_2.pth', weights_only=True)
    assert resumed['meta']['epoch'] == 2
    read.clear()
    again = longer | {'train_cfg.max_epochs': 3}
    train(replace(settings, cfg_options=again, resume=str(run_dir / 'epoch_2.pth')))
    assert read == [run_dir / 'epoch_2.pth']
    monkeypatch.undo()
    # The dumped config holds data and classes: it trains again by itself.
    alone = TrainSettings(run_dir / 'lite0_coco.py', work_dir=run_dir.with_name('alone'))
    cfg, description, *_ = prepare(alone)
    assert description is None
    assert tuple(cfg.train_dataloader.dataset.dataset.metainfo.classes) == CLASSES
    assert cfg.randomness.seed == 3


def test_train__weights_that_are_loaded_need_no_download(
    settings: TrainSettings, tmp_path: Path, small: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError('fetches weights')

    monkeypatch.setattr(timm_backbone, 'load_pretrained', refuse)
    options = small | {'model.backbone.pretrained': True}
    settings = replace(settings, cfg_options=options)
    with pytest.raises(AssertionError, match='fetches'):
        train(settings)
    runner = build_runner(prepare(replace(settings, work_dir=tmp_path / 'first')).cfg)
    torch.save(dict(state_dict=runner.model.state_dict()), tmp_path / 'weights.pth')
    options['load_from'] = str(tmp_path / 'weights.pth')
    train(replace(settings, cfg_options=options))
    dumped = (tmp_path / 'run' / 'lite0_coco.py').read_text()
    assert 'pretrained=True' in dumped


def test_train__resume_without_a_checkpoint_starts_from_the_configs_weights(
    settings: TrainSettings, tmp_path: Path, small: Options
) -> None:
    still = small | {'optim_wrapper.optimizer.lr': 0.0, 'custom_hooks': []}
    backbone = timm.create_model('tf_efficientnet_lite0', features_only=True)
    torch.save(backbone.state_dict(), tmp_path / 'imagenet.pth')
    options = still | {'model.backbone.pretrained': str(tmp_path / 'imagenet.pth')}

    first = replace(settings, work_dir=tmp_path / 'first', cfg_options=options, resume='auto')
    train(first)
    trained = torch.load(tmp_path / 'first' / 'epoch_1.pth', weights_only=True)['state_dict']
    for name, weight in backbone.named_parameters():
        assert torch.equal(trained[f'backbone.model.{name}'], weight)

    # And from the weights that it loads, which are no run to resume.
    options['load_from'] = str(tmp_path / 'first' / 'epoch_1.pth')
    second = replace(first, work_dir=tmp_path / 'second', cfg_options=options, seed=7)
    train(second)
    again = torch.load(tmp_path / 'second' / 'epoch_1.pth', weights_only=True)
    assert again['meta']['epoch'] == 1
    for name in (name for name in trained if name.endswith('.weight')):
        assert torch.equal(again['state_dict'][name], trained[name]), name


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(resume='absent.pth'), r'absent\.pth'),
        (dict(image_size='12xx'), 'WIDTHxHEIGHT'),
        (dict(cfg_options={'model.nekc.x': 1}), "'neck'"),
        (dict(data=Path('absent')), 'absent'),
        (dict(config=Path('absent.py')), r'absent\.py'),
    ],
)
def test_prepare__refuses(
    settings: TrainSettings, run_dir: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words) as error:
        prepare(replace(settings, **change))
    assert '\n' not in str(error.value)
    assert not run_dir.exists()


def test_prepare__a_config_is_what_its_run_writes(
    settings: TrainSettings,
    options: Options,
    run_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So the same command is seen to be the same; another one is seen to be another."""
    configured = replace(settings, data=None, cfg_options=options, work_dir=tmp_path / 'configured')
    monkeypatch.setattr(Runner, 'train', lambda runner: runner.model)
    for chosen in (settings, configured):
        build_runner(prepare(chosen).cfg).train()
        assert chosen.work_dir is not None
        (chosen.work_dir / 'epoch_1.pth').touch()
        with pytest.raises(UserError, match=rf'{chosen.work_dir} holds a run;'):
            prepare(chosen)
        with pytest.raises(UserError, match=r'config\.json: randomness\.seed is 3'):
            prepare(replace(chosen, seed=4))


@pytest.mark.parametrize('overwrite', [False, True])
def test_prepare__second_process_leaves_the_work_dir_to_the_first(
    settings: TrainSettings, run_dir: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    (run_dir / 'data').mkdir(parents=True)
    (run_dir / 'data' / 'train.json').write_text('{"of": "the run that is there"}')
    (run_dir / 'epoch_1.pth').touch()
    before = _hashes(run_dir)
    settings = replace(settings, overwrite=overwrite)
    monkeypatch.setenv('RANK', '1')
    if overwrite:
        prepare(settings)
        assert (run_dir / 'epoch_1.pth').exists()
        monkeypatch.setenv('RANK', '0')
        prepare(settings)
        assert not (run_dir / 'epoch_1.pth').exists()
    else:
        with pytest.raises(UserError, match='holds a run'):
            prepare(settings)
        assert _hashes(run_dir) == before


def test_prepare__second_process_is_not_stopped_by_the_first(
    settings: TrainSettings, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(settings)
    assert (run_dir / 'data' / 'train.json').exists()
    monkeypatch.setenv('RANK', '1')
    prepare(settings)


@pytest.mark.parametrize('kept', [['meta', 'state_dict', 'message_hub'], ['meta', 'state_dict']])
def test_prepare__refuses_to_resume_from_weights(
    settings: TrainSettings, run_dir: Path, tmp_path: Path, kept: list[str]
) -> None:
    """The best checkpoint of a run, and a converted one."""
    path = tmp_path / 'weights.pth'
    torch.save({key: {} for key in kept}, path)
    with pytest.raises(CheckpointError, match=rf'holds weights only .* load_from={path}$'):
        prepare(replace(settings, resume=str(path)))
    assert not run_dir.exists()


class _Touches:
    """Unpickling one runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_prepare__refuses_a_checkpoint_that_would_run_code(
    settings: TrainSettings, tmp_path: Path
) -> None:
    torch.save(dict(state_dict={}, meta=_Touches(tmp_path / 'written')), tmp_path / 'bad.pth')
    with pytest.raises(CheckpointError, match=r'bad\.pth'):
        prepare(replace(settings, resume=str(tmp_path / 'bad.pth')))
    assert not (tmp_path / 'written').exists()


def test_prepare__amp(
    settings: TrainSettings, small: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(settings, amp=True)
    prepared = prepare(settings)
    assert prepared.cfg.optim_wrapper.type == 'ClippedAmpOptimWrapper'
    assert prepared.cfg.optim_wrapper.clip_norm == 10
    if not torch.cuda.is_available():
        assert any('bfloat16' in remark for remark in prepared.remarks())
    plain = {
        'optim_wrapper._delete_': True,
        'optim_wrapper.type': 'OptimWrapper',
        'optim_wrapper.optimizer': dict(type='SGD', lr=0.1),
    }
    # Not by its name: the package has a function of the module's name.
    module = sys.modules['effdet_plugin.training.train']
    monkeypatch.setattr(module, 'get_device', lambda: 'cpu')
    with pytest.raises(ConfigError, match=r'--amp.*AmpOptimWrapper.*GPU'):
        prepare(replace(settings, cfg_options=small | plain))
    monkeypatch.setattr(module, 'get_device', lambda: 'cuda')
    cfg, *_ = prepare(replace(settings, cfg_options=small | plain))
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'


def test_prepare__auto_scale_lr(settings: TrainSettings, small: Options) -> None:
    off = small | {'auto_scale_lr.enable': False}
    assert prepare(replace(settings, cfg_options=off)).cfg.auto_scale_lr.enable is False
    cfg, *_ = prepare(replace(settings, cfg_options=off, auto_scale_lr=True))
    assert cfg.auto_scale_lr.enable is True


def test_train__a_batch_larger_than_the_dataset(options: Options, settings: TrainSettings) -> None:
    options = options | {'train_dataloader.batch_size': 8}
    with pytest.raises(ConfigError, match=r'4 images .* 8 .*batch_size'):
        train(replace(settings, data=None, cfg_options=options))


def test_dry_run__configured_data(
    options: Options, settings: TrainSettings, data: Path, run_dir: Path
) -> None:
    before = _hashes(data)
    summary = dry_run(replace(settings, data=None, cfg_options=options))
    assert summary == dict(classes=list(CLASSES), train_images=4, val_images=3, boxes=7, remarks=[])
    assert _hashes(data) == before
    assert not run_dir.exists()


def test_dry_run__leaves_the_work_dir_and_the_weights_alone(
    settings: TrainSettings, run_dir: Path, small: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses another run's folder, too, and touches nothing there with --overwrite."""
    run_dir.mkdir()
    (run_dir / 'epoch_1.pth').write_bytes(b'weights')
    (run_dir / 'config.json').write_text('{"model": {"type": "Other"}}')
    monkeypatch.setattr(timm_backbone, 'load_pretrained', lambda *_: pytest.fail('fetches'))
    options = small | {'model.backbone.pretrained': True}
    settings = replace(settings, cfg_options=options)
    before = _hashes(run_dir)
    with pytest.raises(UserError, match=r'config\.json: .*--overwrite'):
        dry_run(settings)
    dry_run(replace(settings, overwrite=True))
    assert _hashes(run_dir) == before


def _layouts() -> list[dict[str, Any]]:
    shared = shared_dir()
    path = shared / 'data/layouts/expected.json' if shared else Path('absent')
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else []


@pytest.mark.parametrize('expected', _layouts(), ids=lambda expected: expected['folder'])
def test_dry_run__what_labelling_tools_write(
    expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A runner formats its config three times and its datasets collect garbage: most of the time.
    monkeypatch.setattr(Config, 'pretty_text', property(lambda _: ''))
    monkeypatch.setattr('gc.collect', lambda *_: 0)
    shared = shared_dir()
    assert shared is not None
    folder = shared / 'data' / 'layouts' / expected['folder']
    before = _hashes(folder)
    settings = TrainSettings(CONFIGS / 'custom_coco.py', data=folder, work_dir=tmp_path / 'run')
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
    assert _hashes(folder) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(('launcher', 'words'), [('pytorch', 'torchrun'), ('slurm', 'needs GPUs')])
def test_train__launcher_that_cannot_work(
    settings: TrainSettings, launcher: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv('RANK', raising=False)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ConfigError, match=words):
        train(replace(settings, launcher=launcher))


def _worker() -> Iterator[None]:
    raise UserError(
        'Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call '
        'last):\n  File "x.py", line 1\neffdet_plugin.errors.UserError: a.jpg: cannot be read\n'
    )


def test_one_line_errors__of_workers() -> None:
    with pytest.raises(UserError) as error, one_line_errors():
        _worker()
    assert str(error.value) == 'a.jpg: cannot be read'
    with pytest.raises(UserError, match='worker has ended'), one_line_errors():
        raise ConnectionResetError(104, 'Connection reset by peer')


def test_train__image_that_cannot_be_read(
    settings: TrainSettings, data: Path, options: Options, tmp_path: Path
) -> None:
    """Met in a worker: one line with the file's name."""
    images = tmp_path / 'images'
    images.mkdir()
    for path in data.glob('*.png'):
        (images / path.name).write_bytes(b'text' if path.stem == '2' else path.read_bytes())
    options = options | {
        'train_dataloader.dataset.dataset.data_prefix.img': str(images),
        'train_dataloader.num_workers': 1,
    }
    with pytest.raises(UserError, match=r'2\.png') as error:
        train(replace(settings, data=None, cfg_options=options))
    assert '\n' not in str(error.value)
