"""What a checkpoint holds, and which ones are kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from toy import CLASSES, in_child, toy_config, train

from effdet_plugin import __version__
from effdet_plugin.engine.checkpoint import AtomicCheckpointHook
from effdet_plugin.errors import ConfigError
from effdet_plugin.files import load_weights_only


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that keeps two files, and publishes."""
    work_dir = tmp_path_factory.mktemp('run')
    hook = {'published_keys': ['meta', 'state_dict']}
    assert in_child(train, toy_config(work_dir, default_hooks={'checkpoint': hook})) == 0
    return work_dir


def test_files__the_newest_the_best_and_the_note(run: Path) -> None:
    names = {path.name for path in run.glob('*.pth')}
    published = {name for name in names if '-' in name}
    assert names - published == {'epoch_3.pth', 'epoch_4.pth', 'best_seen_epoch_1.pth'}
    assert {name.split('-')[0] for name in published} == {'epoch_4', 'best_seen_epoch_1'}
    assert (run / 'last_checkpoint').read_text() == str(run / 'epoch_4.pth')
    assert not list(run.glob('.*'))


def test_content__plain_and_complete(run: Path) -> None:
    for path in run.glob('*.pth'):
        checkpoint = torch.load(path, weights_only=True)
        assert checkpoint['meta']['dataset_meta']['classes'] == CLASSES
        assert checkpoint['meta']['effdet_plugin_version'] == __version__
        assert "type='ToyNet'" in checkpoint['meta']['cfg']
    checkpoint = load_weights_only(run / 'epoch_4.pth')
    assert checkpoint['ema_state_dict']['steps'] == 24
    assert {'torch', 'numpy', 'python'} <= checkpoint['random_states'][0].keys()
    assert checkpoint['message_hub']['runtime_info']['keep_ckpt_ids'] == [3, 4]
    assert len(checkpoint['message_hub']['log_scalars']['train/loss']['values']) == 24


def test_content__weights_are_the_average(run: Path) -> None:
    checkpoint = load_weights_only(run / 'epoch_4.pth')
    name = 'backbone.0.weight'
    raw = checkpoint['ema_state_dict'][f'module.{name}']
    assert not torch.equal(checkpoint['state_dict'][name], raw)


def test_published__only_what_was_asked_for(run: Path) -> None:
    (path,) = run.glob('epoch_4-*.pth')
    assert load_weights_only(path).keys() == {'meta', 'state_dict'}


def make_hook(folder: Path, **arguments: Any) -> Any:
    from mmengine.fileio import get_file_backend

    hook = AtomicCheckpointHook(save_best=['a', 'b'], rule='greater', **arguments)
    hook.out_dir = str(folder)
    hook.file_backend = get_file_backend(backend_args=hook.backend_args)
    hook.best_ckpt_path_dict = {'a': None, 'b': None}
    return hook


class _Runner:
    """What saving the best needs of a runner."""

    def __init__(self, folder: Path) -> None:
        from mmengine.logging import MessageHub, MMLogger

        self.epoch, self.iter, self.work_dir = 1, 6, str(folder)
        self.logger = MMLogger.get_current_instance()
        self.message_hub = MessageHub(f'best-{folder.name}')
        self.folder = folder
        self.present: list[set[str]] = []

    def save_checkpoint(self, folder: str, filename: str, **more: Any) -> None:
        (self.folder / filename).write_bytes(b'')
        self.present.append({path.name for path in self.folder.iterdir()})


def test_best__of_two_metrics_and_the_old_one_stays_until_the_new_is_there(tmp_path: Path) -> None:
    hook, runner = make_hook(tmp_path), _Runner(tmp_path)
    hook._save_best_checkpoint(runner, {'a': 1.0, 'b': 5.0})
    runner.epoch = 2
    hook._save_best_checkpoint(runner, {'a': 2.0, 'b': 4.0})
    # While the second of `a` was written, its first was still there.
    assert runner.present[-1] == {'best_a_epoch_1.pth', 'best_b_epoch_1.pth', 'best_a_epoch_2.pth'}
    assert {p.name for p in tmp_path.iterdir()} == {'best_b_epoch_1.pth', 'best_a_epoch_2.pth'}
    paths = {key: Path(path).name for key, path in hook.best_ckpt_path_dict.items()}
    assert paths == {'a': 'best_a_epoch_2.pth', 'b': 'best_b_epoch_1.pth'}


def test_by_iteration__is_refused_in_an_epoch_based_loop(tmp_path: Path) -> None:
    config = toy_config(tmp_path, default_hooks={'checkpoint': {'by_epoch': False}})
    with pytest.raises(ConfigError, match='by_epoch=True'):
        train(config)
