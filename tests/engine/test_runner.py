"""Several processes, synchronised BN, the sampler, and the settings of loader and memory."""

import copy
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from forked import in_child, in_processes
from mmdet.registry import RUNNERS
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.logging import MMLogger
from mmengine.model import convert_sync_batchnorm as convert_by_mmengine
from mmengine.model import revert_sync_batchnorm
from mmengine.runner import Runner
from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct, convert_sync_batchnorm
from torch import nn
from torch.utils.data import DataLoader, Dataset
from toy import ToyNet, toy_config, train

from effdet_plugin.engine.runner import EfficientDetRunner, keep_freed_memory
from effdet_plugin.engine.sampler import EpochSampler
from effdet_plugin.errors import CheckpointError, ConfigError


def train_and_write(work_dir: Path) -> None:
    """Train as one of several processes, and write the weights and the average of each."""
    config = toy_config(
        work_dir,
        launcher='pytorch',
        train_cfg={'max_epochs': 2},
        train_dataloader={'num_workers': 0, 'persistent_workers': False},
    )
    runner = train(config)
    average = next(h for h in runner.hooks if hasattr(h, 'ema_model')).ema_model.module
    assert torch.distributed.get_backend() == 'gloo'
    states = [runner.model.module.state_dict(), average.state_dict()]
    torch.save(states, work_dir / f'rank_{runner.rank}.pt')
    drawn = torch.rand(3)
    torch.save(drawn, work_dir / f'drawn_{runner.rank}.pt')


@pytest.mark.dist
def test_two_processes__end_with_equal_weights(tmp_path: Path) -> None:
    assert in_processes(2, train_and_write, tmp_path) == [0, 0]
    first, second = (torch.load(tmp_path / f'rank_{rank}.pt') for rank in (0, 1))
    torch.manual_seed(3)
    untrained = ToyNet().state_dict()
    for own, other in zip(first, second, strict=True):  # of the model, of the average
        for name, tensor in own.items():
            torch.testing.assert_close(tensor, other[name], rtol=1e-6, atol=1e-7)
        assert not torch.allclose(own['backbone.0.weight'], untrained['backbone.0.weight'])


def evaluate(work_dir: Path, images: int, device: str) -> None:
    """Evaluate as one of several processes; the first writes what was counted."""
    config = toy_config(work_dir, launcher='pytorch', train_cfg={'max_epochs': 1})
    config.val_dataloader.dataset.length = images
    config.val_dataloader.batch_size = 4
    config.val_evaluator.collect_device = device
    metrics = RUNNERS.build(config).val()
    if torch.distributed.get_rank() == 0:
        torch.save(metrics, work_dir / 'metrics.pt')


@pytest.mark.dist
@pytest.mark.parametrize(('images', 'device'), [(51, 'cpu'), (51, 'gpu'), (50, 'cpu'), (1, 'cpu')])
def test_two_processes__count_each_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: int, device: str
) -> None:
    monkeypatch.chdir(tmp_path)  # mmengine collects through a folder beside the caller
    assert in_processes(2, evaluate, tmp_path, images, device) == [0, 0]
    metrics = torch.load(tmp_path / 'metrics.pt')
    assert metrics == {'seen': images, 'distinct': images, 'sum': images * (images - 1) // 2}


def resume_with_two(work_dir: Path) -> None:
    config = toy_config(work_dir, launcher='pytorch', resume=True)
    config.train_dataloader.update(num_workers=0, persistent_workers=False)
    runner = train(config)
    assert runner.epoch == 4


@pytest.mark.dist
def test_two_processes__resume_a_run_of_one(tmp_path: Path) -> None:
    assert in_child(train, toy_config(tmp_path, train_cfg={'max_epochs': 2})) == 0
    assert in_processes(2, resume_with_two, tmp_path) == [0, 0]
    assert (tmp_path / 'epoch_4.pth').exists()


@pytest.mark.parametrize('choice', ['mmcv', 'timm', 1.5])
def test_sync_bn__an_unknown_choice_is_an_error(tmp_path: Path, choice: object) -> None:
    with pytest.raises(ConfigError, match='sync_bn'):
        RUNNERS.build(toy_config(tmp_path, sync_bn=choice))


@pytest.mark.parametrize('choice', [None, True, False, 'torch'])
def test_sync_bn__one_process_has_plain_bn_and_the_config_stays(
    tmp_path: Path, choice: object
) -> None:
    runner = RUNNERS.build(toy_config(tmp_path, sync_bn=choice))
    assert isinstance(runner, EfficientDetRunner)
    assert type(runner.model.backbone[1]) is torch.nn.BatchNorm2d
    assert runner.cfg.sync_bn == choice
    assert runner.syncs_bn is False


def test_plain_runner__takes_the_same_config(tmp_path: Path) -> None:
    config = toy_config(tmp_path, sync_bn=None, runner_type='Runner', train_cfg={'max_epochs': 1})
    assert in_child(train, config) == 0
    assert (tmp_path / 'epoch_1.pth').exists()
    assert in_child(train, toy_config(tmp_path, runner_type='Runner', resume=True)) == 0
    assert (tmp_path / 'epoch_4.pth').exists()


def test_load_from__a_missing_or_damaged_file_is_one_line(tmp_path: Path) -> None:
    for name in ('missing.pth', 'damaged.pth'):
        (tmp_path / 'damaged.pth').write_bytes(b'PK')
        config = toy_config(tmp_path / 'run', load_from=str(tmp_path / name))
        with pytest.raises(CheckpointError, match=name):
            train(config)


def test_resume__without_a_checkpoint_starts_from_the_beginning(tmp_path: Path) -> None:
    config = toy_config(tmp_path, resume=True, train_cfg={'max_epochs': 1})
    assert in_child(train, config) == 0
    assert (tmp_path / 'epoch_1.pth').exists()


@pytest.mark.parametrize(
    ('device', 'own', 'pinned'),
    [('cuda', {}, True), ('cuda', {'pin_memory': False}, False), ('cpu', {}, False)],
)
def test_loader__pins_memory_for_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, own: dict[str, bool], pinned: bool
) -> None:
    config = toy_config(tmp_path)
    monkeypatch.setattr('effdet_plugin.engine.runner.get_device', lambda: device)
    loader = EfficientDetRunner.build_dataloader({**config.train_dataloader, **own})
    assert loader.pin_memory is pinned


@pytest.fixture(scope='module')
def net() -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model('tf_efficientnet_b0', features_only=True, out_indices=(1,))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean)
    return model.eval()


@pytest.fixture(scope='module')
def image() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_convert__same_outputs(net: nn.Module, image: torch.Tensor) -> None:
    expected = net(image)
    synced = convert_sync_batchnorm(copy.deepcopy(net))
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in synced.modules()) > 5
    torch.testing.assert_close(synced(image), expected)  # in eval mode nothing is exchanged
    assert list(synced.state_dict()) == list(net.state_dict())


def test_convert__keeps_settings_and_parameters(net: nn.Module) -> None:
    own = copy.deepcopy(net)
    parameters = list(own.parameters())
    synced = convert_sync_batchnorm(own)
    assert all(a is b for a, b in zip(parameters, synced.parameters(), strict=True))
    settings = {(m.eps, m.momentum) for m in net.modules() if isinstance(m, nn.BatchNorm2d)}
    assert settings == {
        (m.eps, m.momentum) for m in synced.modules() if isinstance(m, nn.SyncBatchNorm)
    }


def test_mmengines_converter__drops_the_activation(net: nn.Module, image: torch.Tensor) -> None:
    """Why the runner converts; if this fails, mmengine's own converter is right and ours can go."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        other = revert_sync_batchnorm(convert_by_mmengine(copy.deepcopy(net), 'torch'))
    difference = max(
        float((a - b).abs().max()) for a, b in zip(other(image), net(image), strict=True)
    )
    assert difference > 0.1


@pytest.mark.parametrize(
    ('choice', 'has_gpu', 'expected'),
    [
        (None, True, SyncBatchNormAct),
        (True, True, SyncBatchNormAct),
        ('torch', True, SyncBatchNormAct),
        (False, True, BatchNormAct2d),
        (None, False, BatchNormAct2d),
    ],
)
def test_runner__synchronises_bn_with_its_activation(
    net: nn.Module, monkeypatch: pytest.MonkeyPatch, choice: Any, has_gpu: bool, expected: type
) -> None:
    """As one of several processes, up to the wrapping, which is left out."""
    runner: Any = EfficientDetRunner.__new__(EfficientDetRunner)
    runner._distributed, runner.cfg = True, Config({'sync_bn': choice})
    runner.logger = MMLogger.get_current_instance()
    seen_by_mmengine: list[Any] = []

    def wrap(self: Runner, wrapper: Any, model: nn.Module) -> nn.Module:
        seen_by_mmengine.append(self.cfg.get('sync_bn'))
        return model

    monkeypatch.setattr(Runner, 'wrap_model', wrap)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: has_gpu)
    model = runner.wrap_model(None, copy.deepcopy(net))
    assert {type(m) for m in model.modules() if hasattr(m, 'running_var')} == {expected}
    assert (seen_by_mmengine, runner.cfg.sync_bn) == ([None], choice)


class Pairs(Dataset):
    """Returns what it was asked for, and its seed."""

    def __init__(self, length: int = 7, seed: int | None = None) -> None:
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: tuple[int, int]) -> tuple[tuple[int, int], int | None]:
        return index, self.seed


@pytest.mark.parametrize('shuffle', [True, False])
def test_iter__mmengines_order_with_the_epoch(shuffle: bool) -> None:
    sampler = EpochSampler(Pairs(), shuffle=shuffle, seed=3)
    plain = DefaultSampler(Pairs(), shuffle=shuffle, seed=3)
    for epoch in (0, 4):
        sampler.set_epoch(epoch)
        plain.set_epoch(epoch)
        assert list(sampler) == [(epoch, index) for index in plain]


@pytest.mark.parametrize('workers', [0, 2])
def test_loader__persistent_workers_learn_the_epoch(workers: int) -> None:
    dataset = Pairs()
    sampler = EpochSampler(dataset, seed=3)
    settings = {'num_workers': workers, 'persistent_workers': workers > 0, 'collate_fn': list}
    loader: DataLoader[Any] = DataLoader(dataset, 2, sampler=sampler, **settings)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        samples = [sample for batch in loader for sample in batch]
        assert {index[0] for index, _ in samples} == {epoch}
        assert sorted(index[1] for index, _ in samples) == list(range(7))
        assert {seed for _, seed in samples} == {3}


def test_loader__without_workers_drops_what_the_config_says_of_them() -> None:
    settings = {'persistent_workers': True, 'prefetch_factor': 2, 'dataset': Pairs()}
    sampler = {'type': 'DefaultSampler'}
    loader = EfficientDetRunner.build_dataloader(
        {'num_workers': 0, 'batch_size': 2, 'sampler': sampler, **settings}
    )
    assert len(loader.dataset) == 7  # type: ignore[arg-type]
    assert not loader.persistent_workers
    kept = EfficientDetRunner.build_dataloader(
        {'num_workers': 1, 'batch_size': 2, 'sampler': sampler, **settings}
    )
    assert (kept.persistent_workers, kept.prefetch_factor) == (True, 2)


@pytest.mark.parametrize(('own', 'expected'), [(None, 5), (11, 11)])
def test_seed__goes_to_a_dataset_that_has_none(own: int | None, expected: int) -> None:
    dataset = Pairs(seed=own)
    sampler = EpochSampler(dataset, seed=3)
    sampler.reseed(5)
    assert sampler.seed == 5
    assert dataset.seed == expected


def test_seed__reaches_through_the_runners_slice() -> None:
    loader = Runner.build_dataloader(
        {
            'dataset': Pairs(),
            'sampler': {'type': 'mmdet.EpochSampler'},
            'batch_size': 2,
            'num_batch_per_epoch': 2,
        },
        seed=9,
    )
    assert loader.dataset._dataset.seed == 9
    assert sum(len(batch[0][0]) for batch in loader) == 4


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='a setting of glibc')
def test_keep_freed_memory__large_tensors_come_without_new_pages() -> None:
    import resource

    def new_pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            torch.zeros(8 << 20)  # 32 MB
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    assert keep_freed_memory()
    new_pages()  # the heap grows once
    # 4 x 8192 pages of 4 kB otherwise; a machine short of memory may take some back in between.
    assert min(new_pages() for _ in range(3)) < 1000
