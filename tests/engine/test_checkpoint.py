"""What a checkpoint holds, which files are kept, plain types, and the random state."""

import random
from collections import OrderedDict
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from forked import in_child
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from toy import CLASSES, toy_config, train

from effdet_plugin import __version__
from effdet_plugin.engine.checkpoint import (
    AtomicCheckpointHook,
    from_weights_only,
    random_state,
    restore_random_state,
    to_weights_only,
)
from effdet_plugin.errors import ConfigError
from effdet_plugin.weights_only import load_weights_only


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that keeps two files, and publishes."""
    work_dir = tmp_path_factory.mktemp('run')
    hook = {'published_keys': ['meta', 'state_dict']}
    assert in_child(train, toy_config(work_dir, default_hooks={'checkpoint': hook})) == 0
    return work_dir


def test_files__the_newest_and_the_best(run: Path) -> None:
    names = {path.name for path in run.glob('*.pth')}
    published = {name for name in names if '-' in name}
    assert names - published == {'epoch_3.pth', 'epoch_4.pth', 'best_seen_epoch_1.pth'}
    assert {name.split('-')[0] for name in published} == {'epoch_4', 'best_seen_epoch_1'}
    assert (run / 'last_checkpoint').read_text() == str(run / 'epoch_4.pth')
    assert not list(run.glob('.*'))


def test_content__is_plain_and_complete(run: Path) -> None:
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


def test_best__of_two_metrics_and_the_new_one_is_written_before_the_old_is_removed(
    tmp_path: Path,
) -> None:
    hook, runner = make_hook(tmp_path), _Runner(tmp_path)
    hook._save_best_checkpoint(runner, {'a': 1.0, 'b': 5.0})
    runner.epoch = 2
    hook._save_best_checkpoint(runner, {'a': 2.0, 'b': 4.0})
    # While the second of `a` was written, its first was still there.
    assert runner.present[-1] == {'best_a_epoch_1.pth', 'best_b_epoch_1.pth', 'best_a_epoch_2.pth'}
    assert {p.name for p in tmp_path.iterdir()} == {'best_b_epoch_1.pth', 'best_a_epoch_2.pth'}
    paths = {key: Path(path).name for key, path in hook.best_ckpt_path_dict.items()}
    assert paths == {'a': 'best_a_epoch_2.pth', 'b': 'best_b_epoch_1.pth'}
    # An epoch that a resumed run repeats writes its file again, which is not the outdated one.
    hook._save_best_checkpoint(runner, {'a': 3.0, 'b': 4.0})
    assert {p.name for p in tmp_path.iterdir()} == {'best_b_epoch_1.pth', 'best_a_epoch_2.pth'}


def test_by_iteration__is_refused_in_an_epoch_based_loop(tmp_path: Path) -> None:
    config = toy_config(tmp_path, default_hooks={'checkpoint': {'by_epoch': False}})
    with pytest.raises(ConfigError, match='by_epoch=True'):
        train(config)


class Color(IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        (np.float64(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_('a'), 'a'),
        (Color.RED, 1),
        (Path('a') / 'b', str(Path('a') / 'b')),
        ((1, [2, None]), (1, [2, None])),
        ({'a': np.float32(1)}, {'a': 1.0}),
        (ConfigDict(a=dict(b=1)), {'a': {'b': 1}}),
        (np.array(['x', 'y']), ['x', 'y']),
        (frozenset({7}), (7,)),
    ],
)
def test_to_weights_only__types(value: Any, expected: Any, tmp_path: Path) -> None:
    plain = to_weights_only(value)
    assert plain == expected
    assert type(plain) is type(expected)
    torch.save(plain, tmp_path / 'x')
    assert torch.load(tmp_path / 'x', weights_only=True) == expected


@pytest.mark.parametrize('kind', ['float64', 'float32', 'int64', 'uint8', 'uint32', 'bool'])
def test_to_weights_only__arrays(kind: str) -> None:
    plain = to_weights_only(np.array([0, 1, 1], dtype=kind))
    assert plain.tolist() == [0, 1, 1]
    assert plain.dtype is (torch.int64 if kind == 'uint32' else getattr(torch, kind))


def test_message_hub__round_trip_through_a_plain_file(tmp_path: Path) -> None:
    hub = MessageHub('one')
    for loss in (3.0, 2.0, 4.0):
        hub.update_scalar('train/loss', loss)
    hub.update_info('best_score', np.float64(0.25))
    hub.update_info('shape', (2, 3))
    torch.save(to_weights_only(hub.state_dict()), tmp_path / 'hub.pth')
    other = MessageHub('two')
    other.load_state_dict(from_weights_only(torch.load(tmp_path / 'hub.pth', weights_only=True)))
    buffer = other.get_scalar('train/loss')
    assert isinstance(buffer, HistoryBuffer)
    assert (buffer.mean(), buffer.current(), buffer.max_length) == (3.0, 4.0, 1000000)
    buffer.update(1)
    assert buffer.mean() == 2.5
    assert other.get_info('best_score') == 0.25
    assert other.get_info('shape') == (2, 3)


def test_from_weights_only__leaves_the_rest() -> None:
    value = OrderedDict(a=[1, {'b': torch.ones(2)}], c='x')
    back = from_weights_only(value)
    assert back['a'][0] == 1
    assert back['a'][1]['b'] is value['a'][1]['b']


def draw() -> list[float]:
    # `normal` and `gauss` draw two numbers at once and keep the second, as a part of the state.
    return [
        float(torch.rand(1)),
        float(torch.randn(1)),
        float(np.random.rand()),
        float(np.random.normal()),
        random.random(),
        random.gauss(0, 1),
    ]


def test_restore__after_a_plain_file(tmp_path: Path) -> None:
    draw()
    torch.save(random_state(), tmp_path / 'state.pth')
    expected = [draw(), draw()]
    restore_random_state(torch.load(tmp_path / 'state.pth', weights_only=True))
    assert [draw(), draw()] == expected


def test_hook__random_numbers_continue_whatever_happens_between_epochs(tmp_path: Path) -> None:
    hook = AtomicCheckpointHook(interval=-1, save_last=False)
    runner: Any = SimpleNamespace(epoch=0)
    before = draw()
    hook.before_train_iter(runner, 0)  # of the first epoch: there is nothing to restore
    assert not hook.random_states
    hook.after_train_epoch(runner)
    expected = draw()
    assert expected != before
    draw()
    hook.before_train_iter(runner, 0)
    assert draw() == expected
    hook.before_train_iter(runner, 1)
    assert draw() != expected


def test_hook__a_process_without_a_state_is_warned(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    hook = AtomicCheckpointHook()
    hook.random_states = [random_state()]
    runner: Any = SimpleNamespace(logger=logging.getLogger('toy'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('effdet_plugin.engine.checkpoint.get_rank', lambda: 1)
        hook.before_train_iter(runner, 0)
    assert [record.levelname for record in caplog.records] == ['WARNING']
