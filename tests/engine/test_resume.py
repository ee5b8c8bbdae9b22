"""Runs that are killed and resumed equal an uninterrupted one."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import in_child
from mmdet.registry import RUNNERS
from toy import losses_of, toy_config, train

from effdet_plugin.engine.resume import (
    check_resumable,
    find_resume,
)
from effdet_plugin.errors import CheckpointError, UserError

STEPS = 24


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of a run that was not interrupted."""
    work_dir = tmp_path_factory.mktemp('uninterrupted')
    assert in_child(train, toy_config(work_dir)) == 0
    assert len(losses_of(work_dir)) == STEPS
    return work_dir


def resume(work_dir: Path) -> None:
    assert in_child(train, toy_config(work_dir, resume=True)) == 0


def assert_equal_runs(work_dir: Path, uninterrupted: Path) -> None:
    """All losses and rates, the weights, the average and the optimiser's state, to the bit."""
    assert losses_of(work_dir) == losses_of(uninterrupted)
    own, expected = (
        torch.load(path / 'epoch_4.pth', weights_only=True) for path in (work_dir, uninterrupted)
    )
    for key in ('state_dict', 'ema_state_dict'):
        for name, tensor in expected[key].items():
            assert torch.equal(own[key][name], tensor), (key, name)
    assert own['ema_state_dict']['steps'] == STEPS
    momenta = [state['momentum_buffer'] for state in own['optimizer']['state'].values()]
    others = [state['momentum_buffer'] for state in expected['optimizer']['state'].values()]
    assert all(torch.equal(a, b) for a, b in zip(momenta, others, strict=True))


@pytest.mark.parametrize('step', [3, 15, 17])
def test_kill__in_the_middle_of_an_epoch(tmp_path: Path, uninterrupted: Path, step: int) -> None:
    config = toy_config(tmp_path)
    config.custom_hooks[-1]['kill_at'] = step
    assert in_child(train, config) == -signal.SIGKILL
    found = find_resume(tmp_path)
    assert (None if found is None else found.name) == (None if step < 6 else 'epoch_2.pth')
    resume(tmp_path)
    assert_equal_runs(tmp_path, uninterrupted)


def die_while_writing(name: str, share: float, config: Any) -> None:
    """Train, and be killed when this share of a file is written."""
    write_bytes, write_text = Path.write_bytes, Path.write_text

    def part_of(path: Path, content: bytes) -> int:
        write_bytes(path, content[: int(share * len(content))])
        if name in path.name:
            os.kill(os.getpid(), signal.SIGKILL)
        return write_bytes(path, content)

    def part_of_text(path: Path, content: str, **more: Any) -> int:
        if name in path.name:
            part_of(path, content.encode())
        return write_text(path, content, **more)

    Path.write_bytes = part_of  # type: ignore[method-assign,assignment]
    Path.write_text = part_of_text  # type: ignore[method-assign,assignment]
    train(config)


@pytest.mark.parametrize(
    ('name', 'share', 'left'),
    [
        ('.epoch_3.', 0.5, 'epoch_2.pth'),
        ('.epoch_3.', 1.0, 'epoch_2.pth'),
        ('.epoch_1.', 0.5, None),
        ('.best_', 0.5, 'epoch_1.pth'),
    ],
)
def test_kill__while_a_checkpoint_is_written(
    tmp_path: Path, uninterrupted: Path, name: str, share: float, left: str | None
) -> None:
    assert in_child(die_while_writing, name, share, toy_config(tmp_path)) == -signal.SIGKILL
    assert list(tmp_path.glob('.*.part-*'))
    found = find_resume(tmp_path)
    assert (None if found is None else found.name) == left
    resume(tmp_path)
    assert not list(tmp_path.glob('.*.part-*'))
    assert_equal_runs(tmp_path, uninterrupted)


def die_before_the_pointer(work_dir: Path) -> None:
    """Train, and be killed between the third file and the name of it in last_checkpoint."""
    replace = os.replace

    def kill(source: Any, target: Any) -> None:
        if Path(target).name == 'last_checkpoint' and (work_dir / 'epoch_3.pth').exists():
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = kill  # type: ignore[assignment]
    train(toy_config(work_dir))


def test_kill__before_last_checkpoint_names_the_new_file(
    tmp_path: Path, uninterrupted: Path
) -> None:
    """The third file is written, last_checkpoint still names the second, nothing was removed."""
    assert in_child(die_before_the_pointer, tmp_path) == -signal.SIGKILL
    assert (tmp_path / 'last_checkpoint').read_text().endswith('epoch_2.pth')
    assert {p.name for p in tmp_path.glob('epoch_*')} == {f'epoch_{n}.pth' for n in (1, 2, 3)}
    found = find_resume(tmp_path)
    assert found is not None
    assert found.name == 'epoch_3.pth'
    resume(tmp_path)
    assert_equal_runs(tmp_path, uninterrupted)


def test_kill__without_a_seed_the_run_keeps_the_one_it_drew(tmp_path: Path) -> None:
    config = toy_config(tmp_path, randomness={'seed': None})
    config.custom_hooks[-1]['kill_at'] = 15
    assert in_child(train, config) == -signal.SIGKILL
    before = losses_of(tmp_path)
    assert in_child(train, toy_config(tmp_path, randomness={'seed': None}, resume=True)) == 0
    after = losses_of(tmp_path)
    assert [after[step] for step in range(15)] == [before[step] for step in range(15)]


def test_max_keep_one__the_old_file_is_removed_after_the_new_one_is_written(tmp_path: Path) -> None:
    config = toy_config(tmp_path, default_hooks={'checkpoint': {'max_keep_ckpts': 1}})
    assert in_child(die_while_writing, '.epoch_2.', 0.5, config) == -signal.SIGKILL
    assert [path.name for path in tmp_path.glob('epoch_*')] == ['epoch_1.pth']


def test_resume__skips_a_damaged_file(tmp_path: Path, uninterrupted: Path) -> None:
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    content = (tmp_path / 'epoch_4.pth').read_bytes()
    (tmp_path / 'epoch_4.pth').write_bytes(content[: len(content) // 2])
    found = find_resume(tmp_path)
    assert found is not None
    assert found.name == 'epoch_3.pth'
    resume(tmp_path)
    assert_equal_runs(tmp_path, uninterrupted)


def test_resume__a_training_made_longer_follows_its_new_schedule(
    tmp_path: Path, uninterrupted: Path
) -> None:
    """The old schedule is at its end: its rate would stay at the last value."""
    assert in_child(train, toy_config(tmp_path, train_cfg={'max_epochs': 2})) == 0
    done = len(losses_of(tmp_path))
    resume(tmp_path)
    rates = [
        {step: rate for step, (_, rate) in losses_of(run).items()}
        for run in (tmp_path, uninterrupted)
    ]
    assert sorted(rates[0]) == list(range(STEPS))
    assert all(rates[0][step] == rates[1][step] for step in range(done, STEPS))


@pytest.mark.parametrize('place', [0.3, 0.6, 0.9])
def test_find__a_flipped_bit_is_damage(tmp_path: Path, uninterrupted: Path, place: float) -> None:
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    content = bytearray((tmp_path / 'epoch_4.pth').read_bytes())
    archive = torch.PyTorchFileReader(str(tmp_path / 'epoch_4.pth'))
    records = [name for name in archive.get_all_records() if name.startswith('data/')]
    offset = archive.get_record_offset(records[int(place * len(records))])
    content[offset] ^= 1
    (tmp_path / 'epoch_4.pth').write_bytes(content)
    found = find_resume(tmp_path)
    assert found is not None
    assert found.name == 'epoch_3.pth'


def test_check__what_a_run_can_and_cannot_resume_from(tmp_path: Path, uninterrupted: Path) -> None:
    check_resumable(uninterrupted / 'epoch_4.pth')
    path = tmp_path / 'a.pth'
    state: dict[str, Any] = {'meta': {}, 'state_dict': {}, 'optimizer': {}, 'message_hub': {}}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    check_resumable(path)
    torch.save({'meta': {}, 'state_dict': {}}, path)
    with pytest.raises(CheckpointError, match=r'a\.pth.*message_hub, optimizer'):
        check_resumable(path)
    (best,) = uninterrupted.glob('best_*.pth')
    with pytest.raises(CheckpointError, match=f'load_from={best}$'):
        check_resumable(best)


def spoil(config: Any) -> None:
    """Train; the gradient of the last step of the third epoch is NaN, its loss is not."""
    runner = RUNNERS.build(config)
    weight = runner.model.backbone[0].weight
    weight.register_hook(lambda gradient: gradient * torch.nan if runner.iter == 17 else gradient)
    runner.train()


def test_nan_in_the_last_gradient__is_not_written(tmp_path: Path, uninterrupted: Path) -> None:
    with pytest.raises(
        UserError, match=r'not finite after step 18: backbone\.0\.weight.*--resume'
    ) as error:
        spoil(toy_config(tmp_path))
    assert '\n' not in str(error.value)
    assert sorted(p.name for p in tmp_path.glob('epoch_*')) == ['epoch_1.pth', 'epoch_2.pth']
    resume(tmp_path)
    assert_equal_runs(tmp_path, uninterrupted)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'model': {'num_classes': 4}}, r'predict\.pointwise\.weight'),
        ({'custom_hooks': []}, 'moving average'),
        ({'optim_wrapper': {'optimizer': {'type': 'RMSprop'}}}, 'is SGD, not RMSprop'),
        ({'optim_wrapper': {'paramwise_cfg': {'bias_decay_mult': 0}}}, 'parameters in '),
    ],
)
def test_resume__of_another_training_is_refused_by_the_runner(
    tmp_path: Path, uninterrupted: Path, changes: dict[str, Any], words: str
) -> None:
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    config = toy_config(tmp_path, resume=True)
    for key in ('momentum',) if 'RMSprop' in str(changes) else ():
        config.optim_wrapper.optimizer.pop(key)
    if not changes.get('custom_hooks', True):
        config.custom_hooks = []
    else:
        config.merge_from_dict(changes)
    with pytest.raises(CheckpointError, match=rf'epoch_4\.pth: .*{words}'):
        train(config)


@pytest.mark.parametrize('states', [5, [{}], [{'torch': torch.zeros(3, dtype=torch.uint8)}]])
def test_resume__a_damaged_random_state_is_said(
    tmp_path: Path, uninterrupted: Path, states: Any
) -> None:
    shutil.copytree(uninterrupted, tmp_path / 'run')
    path = tmp_path / 'run' / 'epoch_3.pth'
    checkpoint = torch.load(path, weights_only=True)
    torch.save({**checkpoint, 'random_states': states}, path)
    config = toy_config(tmp_path / 'again', load_from=str(path), resume=True)
    # mmengine names a run by the second, and runs of one name share the first one's log file.
    config.experiment_name = tmp_path.name
    assert in_child(train, config) == 0
    (log,) = (tmp_path / 'again').glob('*/*.log')
    assert log.read_text().count('random state in the checkpoint is damaged') == 1
