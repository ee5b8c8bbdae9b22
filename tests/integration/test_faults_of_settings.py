"""Gradient accumulation, weights that are no numbers, and a resume with something changed."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_lines import REPOSITORY, Tools
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from tiny_project import Project, curve, load, must_end_equally, must_equal, rows

THREE_STEPS = 'optim_wrapper.accumulative_counts=3'  # an epoch has four


def snapshot(work_dir: Path) -> dict[str, tuple[int, int]]:
    """Files of a work dir with size and time, but for a lock's."""
    files = (path for path in work_dir.rglob('*') if 'lock' not in path.name)
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_accumulation_that_does_not_divide_the_epoch__resumes_exactly(
    tools: Tools, project: Project, whole_run: Path, tmp_path: Path
) -> None:
    whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
    options = ('--cfg-options', THREE_STEPS)
    tools.train(project.config, whole, *options).must_succeed()
    assert tools.train(project.config, stopped, *options, fault='SIGKILL@11').code == -9
    assert curve(rows(whole)) != curve(rows(whole_run))
    before = len(rows(stopped))
    tools.train(project.config, stopped, '--resume', *options).must_succeed()
    must_equal(curve(rows(stopped)[before:]), curve(rows(whole)), 9)
    must_end_equally(stopped, whole)


def test_accumulation__rate_and_average_are_those_of_the_larger_batch(
    tools: Tools, project: Project, tmp_path: Path
) -> None:
    """2 x 2 images learn at the rate of 4, and the average counts steps of the optimizer."""
    options = {
        'small': ('optim_wrapper.accumulative_counts=2',),
        'large': ('train_dataloader.batch_size=4',),
    }
    for name, changes in options.items():
        tools.train(project.config, tmp_path / name, '--cfg-options', *changes).must_succeed()
    second_epoch = {
        name: [row['lr'] for row in rows(tmp_path / name) if row['epoch'] == 2] for name in options
    }
    rates = {name: found[0] for name, found in second_epoch.items()}
    assert rates['small'] == pytest.approx(rates['large'], rel=1e-3)
    counted = {name: averaged(tmp_path / name / 'epoch_4.pth') for name in options}
    assert counted == {'small': 8, 'large': 8}


def averaged(path: Path) -> int:
    """How many updates the moving average of a checkpoint has had (mmengine's counter)."""
    checkpoint = load(path)
    states = [checkpoint['state_dict'], checkpoint.get('ema_state_dict', {})]
    (steps,) = (int(state['steps']) for state in states if 'steps' in state)
    return steps


CHANGES = {
    'no_average': ("custom_hooks = [dict(type='FiniteLossHook')]", ('average', 'ema')),
    'other_optimizer': (
        """
optimizer = dict(_delete_=True, type='AdamW', lr=0.001, weight_decay=0.01)
optim_wrapper = dict(optimizer=optimizer, weight_decay_mode='decoupled')
""",
        ('optimi',),
    ),
    'other_network': (
        'model = dict(neck=dict(out_channels=24), bbox_head=dict(in_channels=24))',
        ('model', 'network', 'neck', 'bbox_head'),
    ),
    'other_schedule': (
        "param_scheduler = [dict(_delete_=True, type='MultiStepLR', milestones=[2])]",
        ('param_scheduler of the checkpoint is referencelr',),
    ),
    'other_backbone': (
        "model = dict(backbone=dict(model_name='test_efficientnet_gn'))",
        ('model', 'network', 'backbone'),
    ),
}


@pytest.mark.parametrize('name', CHANGES)
def test_resume_with_something_changed__is_said_before_anything_is_written(
    tools: Tools, project: Project, killed_copy: Path, name: str
) -> None:
    text, words = CHANGES[name]
    before = snapshot(killed_copy)
    result = tools.train(project.variant(name, text), killed_copy, '--resume')
    if result.code == 0 and name == 'no_average':
        assert re.search(r'WARNING.*\b(average|EMA)', result.text), result
        return
    line = result.must_be_refused().lower()
    assert any(word in line for word in words), result
    assert snapshot(killed_copy) == before


@pytest.fixture(scope='module')
def spoilt(killed_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A checkpoint with a NaN and an infinite number in two tensors, and the first one's name."""
    checkpoint = load(killed_run / 'epoch_3.pth')
    first, second = spoil(checkpoint)
    assert first != second
    path = tmp_path_factory.mktemp('spoilt') / 'spoilt.pth'
    torch.save(checkpoint, path)
    return path, first


def spoil(checkpoint: dict[str, Any]) -> tuple[str, str]:
    """Put a NaN and an infinity into two tensors of both copies of the weights; return names."""
    floats = [k for k, v in checkpoint['state_dict'].items() if v.is_floating_point()]
    names = floats[len(floats) // 3], floats[len(floats) // 2]
    for part in ('state_dict', 'ema_state_dict'):
        state = checkpoint.get(part, {})
        for name, value in zip(names, (float('nan'), float('inf')), strict=True):
            for key in (name, f'module.{name}'):
                if key in state:
                    state[key].view(-1)[-1] = value
    return names


def test_weights_that_are_no_numbers__are_refused_by_name(
    tools: Tools, project: Project, spoilt: tuple[Path, str], tmp_path: Path
) -> None:
    path, name = spoilt
    work_dir = tmp_path / 'work'
    commands = {
        'test': ('test.py', project.config, path, '--work-dir', work_dir),
        'infer': ('infer.py', project.config, path, project.image, '--out', tmp_path / 'out'),
        'load_from': (
            'train.py', project.config, '--work-dir', work_dir, '--cfg-options',
            f'load_from={path}',
        ),
        'resume': ('train.py', project.config, '--work-dir', work_dir, '--resume', path),
    }  # fmt: skip
    results = {key: tools.run(*command) for key, command in commands.items()}
    missed = {key: str(result) for key, result in results.items() if name not in result.err}
    assert not missed, '\n'.join(f'=== {key}: {result}' for key, result in missed.items())
    for result in results.values():
        result.must_be_refused(path.name, name)
    assert not list(tmp_path.rglob('*.pth'))


def test_newest_weights_are_no_numbers__the_checkpoint_before_is_taken(
    tools: Tools, project: Project, whole_run: Path, killed_copy: Path, spoilt: tuple[Path, str]
) -> None:
    shutil.copy(spoilt[0], killed_copy / 'epoch_3.pth')
    before = len(rows(killed_copy))
    tools.train(project.config, killed_copy, '--resume').must_succeed()
    must_equal(curve(rows(killed_copy)[before:]), curve(rows(whole_run)), 9)


def test_convert__weights_that_are_no_numbers_are_refused_by_name(
    tools: Tools, tmp_path: Path
) -> None:
    cfg = Config.fromfile(REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    checkpoint = {'state_dict': model.state_dict(), 'meta': {}}
    path = tmp_path / 'lite0.pth'
    torch.save(checkpoint, path)
    out = tmp_path / 'out.pth'
    tools.run('convert.py', path, out, '--to', 'effdet').must_succeed()
    out.unlink()
    name, _ = spoil(checkpoint)
    torch.save(checkpoint, path)
    tools.run('convert.py', path, out, '--to', 'effdet').must_be_refused('lite0.pth', name)
    assert not out.exists()


def test_option_in_pythons_form__is_one_line(
    tools: Tools, project: Project, tmp_path: Path
) -> None:
    """mmengine's parser of ``--cfg-options`` calls itself without end on a comma in brackets."""
    option = 'model.backbone.init_cfg=dict(type="Pretrained",checkpoint="a.pth")'
    result = tools.train(project.config, tmp_path / 'work', '--cfg-options', option)
    result.must_be_refused('model.backbone.init_cfg')
