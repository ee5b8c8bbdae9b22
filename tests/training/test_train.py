"""A training as the command line starts it: resuming, weights that it loads, its errors."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from effdet_plugin.errors import ConfigError, UserError
from effdet_plugin.models.backbones import timm_backbone
from effdet_plugin.training import TrainSettings, prepare, train
from effdet_plugin.training.running import build_runner, one_line_errors

CLASSES = ('circle', 'square')
Options = dict[str, Any]
Hashes = Callable[[Path], dict[str, str]]


def test_train__own_data_then_resume(
    settings: TrainSettings,
    data: Path,
    run_dir: Path,
    small: Options,
    monkeypatch: pytest.MonkeyPatch,
    hashes: Hashes,
) -> None:
    before = hashes(data)
    train(settings)
    checkpoint = torch.load(run_dir / 'epoch_1.pth', weights_only=True)
    assert tuple(checkpoint['meta']['dataset_meta']['classes']) == CLASSES
    assert checkpoint['state_dict']['bbox_head.cls_tower.predict.pointwise.weight'].shape[0] == 18
    assert hashes(data) == before

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


def test_train__a_batch_larger_than_the_dataset(options: Options, settings: TrainSettings) -> None:
    options = options | {'train_dataloader.batch_size': 8}
    with pytest.raises(ConfigError, match=r'4 images .* 8 .*batch_size'):
        train(replace(settings, data=None, cfg_options=options))


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
