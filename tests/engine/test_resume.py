"""Runs that are killed and resumed equal an uninterrupted one."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import RUNNERS
from toy import in_child, losses_of, toy_config, train

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


def die_while_writing(name: str, share: float) -> Callable[[Any], None]:
    """Return a training that is killed when this share of a file is written."""
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

    def run(config: Any) -> None:
        Path.write_bytes = part_of  # type: ignore[method-assign,assignment]
        Path.write_text = part_of_text  # type: ignore[method-assign,assignment]
        train(config)

    return run


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
    assert in_child(die_while_writing(name, share), toy_config(tmp_path)) == -signal.SIGKILL
    assert list(tmp_path.glob('.*.part-*'))
    found = find_resume(tmp_path)
    assert (None if found is None else found.name) == left
    resume(tmp_path)
    assert not list(tmp_path.glob('.*.part-*'))
    assert_equal_runs(tmp_path, uninterrupted)


def test_kill__before_last_checkpoint_names_the_new_file(
    tmp_path: Path, uninterrupted: Path
) -> None:
    """The third file is written, last_checkpoint still names the second, nothing was removed."""

    def run(config: Any) -> None:
        replace = os.replace

        def count(source: Any, target: Any) -> None:
            if Path(target).name == 'last_checkpoint' and (tmp_path / 'epoch_3.pth').exists():
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = count  # type: ignore[assignment]
        train(config)

    assert in_child(run, toy_config(tmp_path)) == -signal.SIGKILL
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
    assert in_child(die_while_writing('.epoch_2.', 0.5), config) == -signal.SIGKILL
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


STATE: dict[str, Any] = {'meta': {}, 'state_dict': {}, 'optimizer': {}, 'message_hub': {}}


def test_check__what_a_run_can_and_cannot_resume_from(tmp_path: Path, uninterrupted: Path) -> None:
    check_resumable(uninterrupted / 'epoch_4.pth')
    path = tmp_path / 'a.pth'
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    check_resumable(path)
    torch.save({'meta': {}, 'state_dict': {}}, path)
    with pytest.raises(CheckpointError, match=r'a\.pth.*message_hub, optimizer'):
        check_resumable(path)
    (best,) = uninterrupted.glob('best_*.pth')
    with pytest.raises(CheckpointError, match=f'load_from={best}$'):
        check_resumable(best)


def make_checkpoint(path: Path, time: float) -> None:
    torch.save(STATE, path)
    os.utime(path, (time, time))


def make_run(folder: Path, files: dict[str, float], last: str, written: float) -> None:
    for name, time in files.items():
        make_checkpoint(folder / name, time)
    (folder / 'last_checkpoint').write_text(str(folder / last))
    os.utime(folder / 'last_checkpoint', (written, written))


@pytest.mark.parametrize(
    ('files', 'last', 'written', 'expected'),
    [
        # An earlier, longer run has left its files.
        ({'epoch_11.pth': 10, 'epoch_12.pth': 11, 'epoch_3.pth': 20}, 'epoch_3.pth', 21, 'epoch_3'),
        # Stopped between the file and last_checkpoint.
        ({'epoch_9.pth': 20, 'epoch_10.pth': 25}, 'epoch_9.pth', 21, 'epoch_10'),
        # The file that last_checkpoint names is missing.
        ({'epoch_9.pth': 20, 'epoch_8.pth': 19}, 'epoch_10.pth', 26, 'epoch_9'),
        # Copied: all times are new, and in any order.
        ({'epoch_9.pth': 20, 'epoch_10.pth': 19}, 'epoch_10.pth', 18, 'epoch_10'),
        ({'iter_500.pth': 20, 'iter_1000.pth': 30}, 'iter_1000.pth', 31, 'iter_1000'),
    ],
)
def test_find__the_newest_of_this_run(
    tmp_path: Path, files: dict[str, float], last: str, written: float, expected: str
) -> None:
    make_run(tmp_path, files, last, written)
    found = find_resume(tmp_path)
    assert found is not None
    assert found.stem == expected


def test_find__a_moved_run_and_one_that_writes_elsewhere(tmp_path: Path) -> None:
    make_run(tmp_path, {'epoch_1.pth': 1, 'epoch_2.pth': 2}, 'epoch_2.pth', 3)
    moved = tmp_path / 'moved'
    shutil.copytree(tmp_path, moved, ignore=lambda *_: ['moved'])
    make_checkpoint(tmp_path / 'epoch_3.pth', 10)  # where the copied last_checkpoint points to
    assert find_resume(moved) == moved / 'epoch_2.pth'
    apart = tmp_path / 'apart'
    apart.mkdir()
    shutil.copy2(tmp_path / 'last_checkpoint', apart)
    assert find_resume(apart) == tmp_path / 'epoch_3.pth'


def test_find__without_last_checkpoint_and_without_anything(tmp_path: Path) -> None:
    assert find_resume(tmp_path) is None
    assert find_resume(tmp_path / 'missing') is None
    make_checkpoint(tmp_path / 'epoch_9.pth', 2)
    make_checkpoint(tmp_path / 'epoch_10.pth', 1)
    torch.save({'state_dict': {}}, tmp_path / 'epoch_11.pth')  # published: no state to resume from
    assert find_resume(tmp_path) == tmp_path / 'epoch_10.pth'


@pytest.mark.parametrize(
    'content',
    [b'', b' \n', b'\xff\xfe\x00', b'a\x00.pth', b'/etc/passwd', b'..', b'x' * 5000 + b'.pth',
     b'x' * 300 + b'.pth', b'.pth', b'epoch_.pth', b'/no/epoch_99.pth', b'a\nb.pth'],
)  # fmt: skip
def test_find__a_pointer_of_no_use_hides_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    for number in (1, 2, 10):
        make_checkpoint(tmp_path / f'epoch_{number}.pth', number)
    (tmp_path / 'last_checkpoint').write_bytes(content)
    assert find_resume(tmp_path) == tmp_path / 'epoch_10.pth'
    for name in ('epoch_10.pth', 'epoch_2.pth'):
        (tmp_path / name).write_bytes(b'')
    assert find_resume(tmp_path) == tmp_path / 'epoch_1.pth'


def test_find__a_pointer_to_another_run_or_a_folder(tmp_path: Path) -> None:
    own, other = tmp_path / 'own', tmp_path / 'other'
    for folder in (own, other):
        folder.mkdir()
        for number in (1, 2, 3):
            make_checkpoint(folder / f'epoch_{number}.pth', number)
    (own / 'last_checkpoint').write_text(str(other / 'epoch_1.pth'))
    assert find_resume(own) == own / 'epoch_3.pth'
    (own / 'last_checkpoint').unlink()
    (own / 'last_checkpoint').mkdir()
    assert find_resume(own) == own / 'epoch_3.pth'


def test_find__the_named_one_is_damaged_and_only_higher_ones_are_left(tmp_path: Path) -> None:
    make_run(tmp_path, {'epoch_3.pth': 20, 'epoch_9.pth': 5}, 'epoch_3.pth', 21)
    (tmp_path / 'epoch_3.pth').write_bytes(b'')
    assert find_resume(tmp_path) == tmp_path / 'epoch_9.pth'


def test_find__another_filename_template(tmp_path: Path) -> None:
    make_run(tmp_path, {'step-5.pth': 20}, 'step-5.pth', 21)
    assert find_resume(tmp_path) == tmp_path / 'step-5.pth'


def test_find__weights_that_are_not_finite_are_passed_over(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / 'epoch_1.pth', 1)
    torch.save({**STATE, 'state_dict': {'a': torch.tensor(torch.nan)}}, tmp_path / 'epoch_2.pth')
    assert find_resume(tmp_path) == tmp_path / 'epoch_1.pth'
    with pytest.raises(CheckpointError, match=r'epoch_2\.pth: the weights are not finite: a '):
        check_resumable(tmp_path / 'epoch_2.pth')


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
