"""Checkpoints of other hooks, of odd structure and with code, through the runner."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import in_child
from loopback import Server, serving
from mmdet.registry import MODELS
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner
from mutants import mutants_of
from toy import ToyNet, toy_config, train

from effdet_plugin.engine.checkpoint import to_weights_only
from effdet_plugin.engine.runner import EfficientDetRunner
from effdet_plugin.errors import CheckpointError, UserError
from effdet_plugin.training.running import complete
from effdet_plugin.weights_only import classes_of, load_weights_only, weights_of

SHORT: dict[str, Any] = {
    'train_cfg': {'max_epochs': 1},
    'train_dataloader': {'num_workers': 0, 'persistent_workers': False},
}


@MODELS.register_module()
class InitialisedToyNet(ToyNet):
    """A `ToyNet` that takes ``init_cfg``, as mmdet's models do."""

    def __init__(self, init_cfg: dict[str, Any]) -> None:
        super().__init__()
        self.init_cfg = init_cfg


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.marker,)


def mmengines_run(work_dir: Path, runner_type: str) -> None:
    config = toy_config(work_dir, **SHORT)
    config.runner_type = runner_type
    config.default_hooks.checkpoint = {'type': 'CheckpointHook', 'save_best': 'seen'}
    config.default_hooks.checkpoint.update(rule='greater')
    Runner.from_cfg(config).train()


@pytest.fixture(scope='module')
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that mmengine's own hook has written."""
    work_dir = tmp_path_factory.mktemp('theirs')
    assert in_child(mmengines_run, work_dir, 'Runner') == 0
    content = torch.load(work_dir / 'epoch_1.pth', weights_only=False)
    scalars = content['message_hub']['log_scalars']
    assert {type(value) for value in scalars.values()} == {HistoryBuffer}
    return work_dir / 'epoch_1.pth'


def test_mmengines_own__is_loaded_and_resumed(theirs: Path, tmp_path: Path) -> None:
    loaded = load_weights_only(theirs)
    expected = torch.load(theirs, weights_only=False)
    for name, buffer in expected['message_hub']['log_scalars'].items():
        found = loaded['message_hub']['log_scalars'][name]
        assert all(np.array_equal(a, b) for a, b in zip(found.data, buffer.data, strict=True))
    runner = train(toy_config(tmp_path, load_from=str(theirs), **SHORT))
    assert runner.iter == 6
    changes = {**SHORT, 'train_cfg': {'max_epochs': 2}}
    runner = train(toy_config(tmp_path, load_from=str(theirs), resume=True, **changes))
    assert runner.iter == 12


def test_complete__every_config_writes_plain_checkpoints(tmp_path: Path) -> None:
    for given in ({'checkpoint': {'type': 'CheckpointHook', 'interval': 3}}, {}, None):
        config = toy_config(tmp_path)
        config.default_hooks = given
        if given is None:
            config.pop('default_hooks')
        complete(config)
        hook = config.default_hooks.checkpoint
        assert hook == {'type': 'AtomicCheckpointHook', 'interval': 3 if given else 1}
    config.default_hooks.checkpoint = None
    complete(config)
    assert config.default_hooks.checkpoint is None


@pytest.mark.parametrize('form', ['zip', 'legacy'])
@pytest.mark.parametrize('door', ['load_from', 'init_cfg', 'init_cfg prefix', 'resume'])
@pytest.mark.parametrize('by', ['path', 'address'])
def test_pickle__never_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, door: str, by: str
) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    path, marker = tmp_path / 'x.pth', tmp_path / 'marker'
    content = {'state_dict': ToyNet().state_dict(), 'meta': {}, 'evil': Evil(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=form == 'zip')
    with serving(monkeypatch) as server:
        server.files['x.pth'] = path.read_bytes()
        place = str(path) if by == 'path' else f'{server.url}x.pth'
        config = toy_config(tmp_path, **SHORT)
        if door.startswith('init_cfg'):
            init_cfg = {'type': 'Pretrained', 'checkpoint': place}
            if door.endswith('prefix'):
                init_cfg['prefix'] = 'backbone.'
            config.model = {'type': 'InitialisedToyNet', 'init_cfg': init_cfg}
        else:
            config.load_from, config.resume = place, door == 'resume'
        with pytest.raises(CheckpointError, match=r'x\.pth: needs unpickling of posix\.mkdir'):
            train(config)
        assert not marker.exists()


def test_address__loads_and_initialises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: Path
) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    with serving(monkeypatch) as server:
        assert isinstance(server, Server)
        server.files['x.pth'] = theirs.read_bytes()
        config = toy_config(tmp_path, load_from=f'{server.url}x.pth', **SHORT)
        train(config)
        config = toy_config(tmp_path, **SHORT)
        init_cfg = {'type': 'Pretrained', 'checkpoint': f'{server.url}x.pth'}
        config.model = {'type': 'InitialisedToyNet', 'init_cfg': init_cfg}
        train(config)
        assert len(server.requests) == 1


class SpoiltToyNet(ToyNet):
    """A `ToyNet` whose initial weights no reader of ours has seen, as those of timm's arguments."""

    def init_weights(self) -> None:
        """Put a NaN and an infinity into two tensors."""
        for name, value in (('backbone.1.weight', torch.nan), ('backbone.1.bias', torch.inf)):
            self.get_parameter(name).data[1] = value


def test_initial_weights_that_are_not_finite__by_name(tmp_path: Path) -> None:
    config = toy_config(tmp_path, **SHORT)
    config.model = {'type': SpoiltToyNet}
    with pytest.raises(CheckpointError, match=r'backbone\.1\.weight holds NaN or infinity$'):
        train(config)


@pytest.mark.parametrize(
    ('place', 'words'),
    [('file:///x.pth', 'can not be found;'), ('torchvision://resnet5', "'resnet5' is no name")],
)
@pytest.mark.parametrize('door', ['load_from', 'init_cfg'])
def test_names_of_mmengine__unknown_ones_are_a_line(
    tmp_path: Path, place: str, words: str, door: str
) -> None:
    config = toy_config(tmp_path, **SHORT)
    if door == 'load_from':
        config.load_from = place
    else:
        init_cfg = {'type': 'Pretrained', 'checkpoint': place}
        config.model = {'type': 'InitialisedToyNet', 'init_cfg': init_cfg}
    with pytest.raises(CheckpointError, match=words):
        train(config)


def test_resume__config_in_the_checkpoint_is_not_executed(theirs: Path, tmp_path: Path) -> None:
    """mmengine's ``resume`` executes ``meta['config']`` as a Python file."""
    content = to_weights_only(load_weights_only(theirs))
    content['meta']['config'] = f'import os\nos.mkdir({str(tmp_path / "marker")!r})\n'
    torch.save(content, tmp_path / 'x.pth')
    changes = {**SHORT, 'train_cfg': {'max_epochs': 2}}
    config = toy_config(tmp_path, load_from=str(tmp_path / 'x.pth'), resume=True, **changes)
    train(config)
    config.runner_type = 'Runner'
    Runner.from_cfg(config).train()
    assert not (tmp_path / 'marker').exists()


@pytest.mark.parametrize(
    'checkpoint',
    [
        {},
        {'state_dict': None},
        {'state_dict': [torch.ones(1)]},
        {'state_dict': {}},
        {'state_dict': {'a': 1}},
        {'state_dict': {1: torch.ones(1)}},
        {'state_dict': {'\x1b[2J': 'x' * 10_000}},
        {1: torch.ones(1)},
    ],
)
def test_weights_of__odd(checkpoint: dict[Any, Any]) -> None:
    with pytest.raises(CheckpointError, match='by name') as caught:
        weights_of(checkpoint)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    'meta',
    [5, 'x', {'dataset_meta': 5}, *({'dataset_meta': {'classes': c}} for c in (5, [1], {'a': 1}))],
)
def test_classes_of__odd(meta: Any) -> None:
    with pytest.raises(CheckpointError, match='else than a list of names'):
        classes_of({'meta': meta})
    assert classes_of({'meta': None}) is None


@pytest.mark.parametrize('resume', [False, True])
def test_fuzz__a_checkpoint_is_used_or_refused_in_a_line(
    theirs: Path, tmp_path: Path, resume: bool
) -> None:
    """Structure-aware mutants; ``EFFDET_FUZZ`` is their number."""
    content = load_weights_only(theirs)
    chance = random.Random(7)
    for number in range(int(os.environ.get('EFFDET_FUZZ', '12'))):
        path = tmp_path / f'{number}.pth'
        torch.save(mutants_of(content, chance), path)
        config = toy_config(tmp_path, load_from=str(path), resume=resume, **SHORT)
        config.experiment_name = path.stem
        runner = EfficientDetRunner.from_cfg(config)
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        runner.call_hook('before_run')
        line = ''
        try:
            runner.load_or_resume()
        except UserError as error:
            line = str(error)
        assert '\n' not in line
        assert len(line) < 1000


@pytest.mark.parametrize('key', ['meta', 'dataset_meta', 'classes'])
def test_classes_of__a_tensor_in_their_place(key: str) -> None:
    """Its truth is none: `or` raises (a find of the fuzz, pth:50)."""
    checkpoint: dict[str, Any] = {'meta': {'dataset_meta': {'classes': ('a',)}}}
    assert classes_of(checkpoint) == ('a',)
    node = checkpoint
    for name in ('meta', 'dataset_meta', 'classes'):
        if name == key:
            node[name] = torch.zeros(3)
            break
        node = node[name]
    with pytest.raises(CheckpointError, match='something else than a list of names'):
        classes_of(checkpoint)
