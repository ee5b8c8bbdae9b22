"""Runs that are killed and resumed equal an uninterrupted one; one work dir holds one run."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import RUNNERS
from mmengine.config import Config
from mmengine.runner import Runner
from toy import in_child, losses_of, toy_config, train

from effdet_plugin.engine.resume import (
    CONFIG,
    check_resumable,
    check_work_dir,
    find_resume,
    remove_run,
    write_config,
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


@pytest.fixture(scope='module')
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of a real run of the toy config."""
    work_dir = tmp_path_factory.mktemp('used')
    assert in_child(train, toy_config(work_dir, train_cfg={'max_epochs': 1})) == 0
    return work_dir


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_check__another_config_is_refused_and_nothing_changes(used: Path) -> None:
    before = contents(used)
    config = toy_config(used, train_cfg={'max_epochs': 1}, model={'survival': 0.5})
    with pytest.raises(
        UserError, match=r'config\.json: model\.survival is absent there and 0\.5 here'
    ) as info:
        check_work_dir(used, config)
    assert '--overwrite' in str(info.value)
    assert '--resume' in str(info.value)
    with pytest.raises(UserError, match='max_epochs is 1 there and 4 here'):
        check_work_dir(used, toy_config(used))
    momentum = toy_config(used, train_cfg={'max_epochs': 1})
    momentum.custom_hooks[0]['momentum'] = 0.1
    with pytest.raises(
        UserError, match=r'custom_hooks\[0\]\.momentum is 0\.01 there and 0\.1 here'
    ):
        check_work_dir(used, momentum)
    assert contents(used) == before


def test_check__the_same_config_would_overwrite_its_run(used: Path, tmp_path: Path) -> None:
    before = contents(used)
    same = toy_config(used, train_cfg={'max_epochs': 1})
    same.merge_from_dict({'launcher': 'pytorch', 'load_from': 'x.pth'})
    with pytest.raises(UserError, match=rf'^{used} holds a run; .*--resume.*--overwrite'):
        check_work_dir(used, same)
    assert contents(used) == before
    # One that was stopped before its first checkpoint has left nothing that a new one overwrites.
    shutil.copytree(used, tmp_path, dirs_exist_ok=True)
    remove_run(tmp_path)
    assert list(tmp_path.glob('*/vis_data/*.json'))
    check_work_dir(tmp_path, same)
    with pytest.raises(UserError, match='another config'):
        check_work_dir(tmp_path, toy_config(tmp_path))


def test_check__what_holds_no_run_passes(tmp_path: Path) -> None:
    check_work_dir(tmp_path / 'missing', toy_config(tmp_path))
    check_work_dir(tmp_path, toy_config(tmp_path))
    write_config(tmp_path, toy_config(tmp_path, model={'survival': 0.1}))
    check_work_dir(tmp_path, toy_config(tmp_path))  # a run that stopped before its first line
    (tmp_path / '2026' / 'vis_data').mkdir(parents=True)
    (tmp_path / '2026' / 'vis_data' / 'scalars.json').write_text('{"loss": 1}\n')
    with pytest.raises(UserError, match=r'model\.survival is 0\.1 there and absent here'):
        check_work_dir(tmp_path, toy_config(tmp_path))


def test_check__python_files_are_never_run(tmp_path: Path) -> None:
    """Not even mmengine's dump: what a work dir holds may come from somebody else."""
    (tmp_path / 'weights.pth').write_bytes(b'')
    witness = tmp_path / 'witness'
    (tmp_path / 'script.py').write_text(f"model = open({str(witness)!r}, 'w')\n")
    (tmp_path / 'broken.py').write_text('model = (\n')
    toy_config(tmp_path, model={'survival': 0.1}).dump(tmp_path / 'config.py')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, 'fromfile', lambda *_, **__: pytest.fail('evaluates a config'))
        check_work_dir(tmp_path, toy_config(tmp_path))
        assert not witness.exists()
        (tmp_path / 'epoch_1.pth').write_bytes(b'')  # there is no config.json: of whatever config
        with pytest.raises(UserError, match='--overwrite'):
            check_work_dir(tmp_path, toy_config(tmp_path))


@pytest.mark.parametrize('content', ['', '{"model": ', '[1]', '{"model": {"type": "Other"}}'])
def test_check__a_damaged_or_foreign_config_json_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / CONFIG).write_text(content)
    check_work_dir(tmp_path, toy_config(tmp_path))
    (tmp_path / 'epoch_1.pth').write_bytes(b'')
    with pytest.raises(UserError, match=r'config\.json.*--overwrite') as error:
        check_work_dir(tmp_path, toy_config(tmp_path))
    assert '\n' not in str(error.value)


def test_config__is_written_by_the_first_process_when_it_trains(used: Path, tmp_path: Path) -> None:
    written = json.loads((used / CONFIG).read_text())
    assert written['model'] == {'type': 'ToyNet'}
    assert written['train_cfg']['max_epochs'] == 1
    for rank, train_only in ((0, True), (1, False)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr('effdet_plugin.engine.runner.is_main_process', lambda rank=rank: not rank)
            patch.setattr(Runner, 'train', lambda self: self.model)
            runner = RUNNERS.build(toy_config(tmp_path / str(rank)))
            assert not (tmp_path / str(rank) / CONFIG).exists()  # an evaluation writes none
            runner.train()
            assert (tmp_path / str(rank) / CONFIG).exists() is train_only


def test_remove__the_runs_checkpoints_only(tmp_path: Path) -> None:
    names = ['epoch_3.pth', 'epoch_12.pth', 'best_coco_bbox_mAP_epoch_9.pth', 'mine.pth']
    for name in names:
        torch.save({}, tmp_path / name)
    (tmp_path / 'last_checkpoint').write_text('epoch_12.pth')
    (tmp_path / 'notes.txt').write_text('')
    remove_run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {'mine.pth', 'notes.txt'}


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
