"""Gradient accumulation: rate, moving average and ends of epochs are a larger batch's."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import in_child
from mmdet.registry import RUNNERS
from toy import losses_of, toy_config, train

from effdet_plugin.engine.optim import check_scaling
from effdet_plugin.errors import ConfigError
from effdet_plugin.weights_only import load_weights_only

# 12 images: 6 batches of 2 in an epoch, for 4 epochs.
SCALED = {'auto_scale_lr': {'enable': True, 'base_batch_size': 8}}


def run(work_dir: Path, batches: int, **changes: Any) -> None:
    wrapper = {'accumulative_counts': batches}
    config = toy_config(work_dir, optim_wrapper=wrapper, **SCALED, **changes)
    assert in_child(train, config) == 0


@pytest.mark.parametrize(
    ('size', 'batches', 'updates', 'rate'),
    [
        (2, 1, 24, 0.025),  # 0.1 is for 8 images
        (2, 2, 12, 0.05),
        (4, 1, 12, 0.05),
        (2, 4, 8, 0.1),  # 4 and 2 batches an epoch
        (2, 5, 8, 0.125),  # 5 and 1
        (2, 1000, 4, 0.15),  # an epoch has six
    ],
)
def test_rate_and_average__are_those_of_the_effective_batch(
    tmp_path: Path, size: int, batches: int, updates: int, rate: float
) -> None:
    constant = [{'type': 'ReferenceLR', 'decay': 'constant', 'warmup_epochs': 0}]
    loader = {'batch_size': size}
    run(tmp_path, batches, param_scheduler=constant, train_dataloader=loader)
    rates = [found for _, found in losses_of(tmp_path).values()]
    assert rates == pytest.approx([rate] * len(rates))
    assert load_weights_only(tmp_path / 'epoch_4.pth')['ema_state_dict']['steps'] == updates


def weights_of_updates(model: Any, groups: list[list[Any]]) -> dict[str, torch.Tensor]:
    """After one update by the mean of each group of batches."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for group in groups:
        sum(model(**batch, mode='loss')['loss'] / len(group) for batch in group).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


def compare_weights(config: Any) -> None:
    """Train one epoch of 4 + 2 batches, beside updates by means of 4 and of 2."""
    runner = RUNNERS.build(config)
    model = copy.deepcopy(runner.model)
    batches: list[Any] = []
    forward = type(model).forward

    def note(self: Any, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        if mode == 'loss':
            batches.append({'inputs': inputs})
        return forward(self, inputs, data_samples, mode)

    type(model).forward = note
    runner.train()
    type(model).forward = forward
    expected = weights_of_updates(model.train(), [batches[:4], batches[4:]])
    for name, value in runner.model.state_dict().items():
        assert torch.allclose(value, expected[name], atol=1e-6), name


def test_average_of_mmengine__counts_updates_too(tmp_path: Path) -> None:
    config = toy_config(tmp_path, optim_wrapper={'accumulative_counts': 4})
    config.custom_hooks[0] = {'type': 'EMAHook', 'momentum': 0.01}
    assert in_child(train, config) == 0
    assert load_weights_only(tmp_path / 'epoch_4.pth')['ema_state_dict']['steps'] == 8


@pytest.mark.parametrize('counts', [0, -1, 2.5, '4', None, True])
def test_batches_of_an_update__are_a_whole_number(tmp_path: Path, counts: Any) -> None:
    """mmengine takes 2.5, scales the rate for 2 and updates after each fifth batch."""
    for wrapper in ('ClippedOptimWrapper', 'ClippedAmpOptimWrapper'):
        config = toy_config(tmp_path)
        config.experiment_name = f'{tmp_path.name}_{wrapper}'
        config.optim_wrapper.update(type=wrapper, accumulative_counts=counts)
        with pytest.raises(ConfigError, match=f'accumulative_counts={counts!r} .* whole number'):
            RUNNERS.build(config).train()


@pytest.mark.parametrize(
    'scaling',
    [
        {'enable': True},
        {'enable': True, 'base_batch_size': 0},
        {'enable': True, 'base_batch_size': '8'},
        True,
    ],
)
def test_scaling_without_a_size__is_one_line(scaling: Any) -> None:
    with pytest.raises(ConfigError, match=r'auto_scale_lr=.*base_batch_size=N') as error:
        check_scaling(scaling)
    assert '\n' not in str(error.value)
    assert check_scaling(None) == {}
    assert check_scaling({'enable': False}) == {'enable': False}


def test_last_batches_of_an_epoch__are_their_mean(tmp_path: Path) -> None:
    config = toy_config(tmp_path, model={'survival': 1.1}, train_cfg={'max_epochs': 1})
    config.train_dataloader.update(num_workers=0, persistent_workers=False)
    config.optim_wrapper = dict(
        type='OptimWrapper', accumulative_counts=4, optimizer=dict(type='SGD', lr=0.1)
    )
    config.param_scheduler, config.custom_hooks = [], []
    config.val_dataloader = config.val_evaluator = config.val_cfg = None
    config.default_hooks.checkpoint.save_best = None
    assert in_child(compare_weights, config) == 0


@pytest.mark.parametrize('batches', [4, 5, 7])
def test_killed__resumes_exactly(tmp_path: Path, batches: int) -> None:
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    for folder in (whole, killed):
        folder.mkdir()
    run(whole, batches)
    config = toy_config(killed, optim_wrapper={'accumulative_counts': batches}, **SCALED)
    config.custom_hooks[-1]['kill_at'] = 15
    assert in_child(train, config) == -9
    run(killed, batches, resume=True)
    assert losses_of(killed) == losses_of(whole)
    ours, theirs = (load_weights_only(path / 'epoch_4.pth') for path in (killed, whole))
    for part in ('state_dict', 'ema_state_dict'):
        for name, value in theirs[part].items():
            assert torch.equal(ours[part][name], value), (part, name)


def test_by_iteration__checkpoints_stand_at_updates_only(tmp_path: Path) -> None:
    config = toy_config(
        tmp_path,
        optim_wrapper={'accumulative_counts': 4},
        default_hooks={'checkpoint': {'by_epoch': False, 'interval': 6, 'save_best': None}},
    )
    config.train_cfg = {'type': 'IterBasedTrainLoop', 'max_iters': 12, 'val_interval': 12}
    config.param_scheduler = []
    with pytest.raises(ConfigError, match=r'interval=6 .* no multiple of accumulative_counts=4'):
        train(config)
