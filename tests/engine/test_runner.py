"""Several processes: equal weights, each image counted once, and the choice of synchronised BN."""

from pathlib import Path

import pytest
import torch
from mmdet.registry import RUNNERS
from toy import ToyNet, in_child, in_processes, toy_config, train

from effdet_plugin.engine.runner import EfficientDetRunner
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
def test_two_processes__go_on_from_a_run_of_one(tmp_path: Path) -> None:
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


def test_resume__without_a_checkpoint_starts_anew(tmp_path: Path) -> None:
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
