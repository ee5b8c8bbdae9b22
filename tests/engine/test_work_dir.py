"""One work dir holds one run: another is refused, and nothing in the folder is run."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from forked import in_child
from mmdet.registry import RUNNERS
from mmengine.config import Config
from mmengine.runner import Runner
from toy import toy_config, train

from effdet_plugin.engine.resume import (
    CONFIG,
    check_work_dir,
    remove_run,
    write_config,
)
from effdet_plugin.errors import UserError


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
