"""A killed training that is resumed equals an uninterrupted one: the real tool, network, data."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_lines import Started, Tools

from effdet_plugin.demo import make_scenes
from support import REPOSITORY

EPOCHS, STEPS = 3, 25  # the 50 steps after the first epoch are compared
# Drop-connect is on (Lite), and so are flips and jitter, in two persistent workers.
CONFIG = """
_base_ = {base!r}
image_size = (128, 128)
data_root = {data!r}
train_dataloader = dict(
    batch_size=2, num_workers=2, persistent_workers=True,
    dataset=dict(image_size=image_size, dataset=dict(data_root=data_root)),
)
val_dataloader = test_dataloader = dict(
    dataset=dict(image_size=image_size, dataset=dict(data_root=data_root))
)
val_evaluator = test_evaluator = dict(ann_file=data_root + 'annotations/val.json')
model = dict(backbone=dict(pretrained=False, frozen_stages=-1))
train_cfg = dict(max_epochs={epochs}, val_interval=100)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=2))
log_processor = dict(window_size=1)
randomness = dict(seed=3)
{more}
"""
# Imported by the config: dies while the checkpoint of the second epoch is being written.
KILLER = """
import os, signal
from effdet_plugin import files
flush = files._flush_to_disk
def die(path):
    if 'epoch_2' in path.name:
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    flush(path)
files._flush_to_disk = die
"""
Losses = dict[int, float]


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('interruption')
    make_scenes(root / 'scenes', train=2 * STEPS, val=2)
    (root / 'die_in_write.py').write_text(KILLER)
    return root


def write_config(folder: Path, name: str = 'run.py', more: str = '') -> Path:
    base = str(REPOSITORY / 'configs' / 'efficientdet' / 'quickstart.py')
    text = CONFIG.format(base=base, data=f'{folder}/scenes/', epochs=EPOCHS, more=more)
    (folder / name).write_text(text)
    return folder / name


def train(tools: Tools, config: Path, work_dir: Path, *options: str) -> Started:
    return tools.start_training(config, work_dir, *options, PYTHONPATH=str(config.parent))


def losses(work_dir: Path) -> Losses:
    """Loss of every step, from the logs in order: of a repeated step, the last one."""
    found: Losses = {}
    for log in sorted(work_dir.glob('*/vis_data/scalars.json')):
        rows = (json.loads(line) for line in log.read_text().splitlines())
        found.update({row['step']: row['loss'] for row in rows if 'loss' in row})
    return found


def kill_when(started: Started, is_time: Callable[[], bool]) -> None:
    """Kill the training and its workers at once, as a power failure does."""
    deadline = time.monotonic() + 600
    while not is_time():
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    started.end()
    started.wait()


@pytest.fixture(scope='module')
def uninterrupted(tools: Tools, folder: Path) -> Losses:
    work_dir = folder / 'uninterrupted'
    train(tools, write_config(folder), work_dir).wait(600).must_succeed()
    found = losses(work_dir)
    assert sorted(found) == list(range(1, EPOCHS * STEPS + 1))
    return found


def assert_resumes(tools: Tools, work_dir: Path, config: Path, expected: Losses) -> None:
    train(tools, config, work_dir, '--resume').wait(600).must_succeed()
    found = losses(work_dir)
    steps = range(STEPS + 1, EPOCHS * STEPS + 1)
    assert max(abs(found[s] - expected[s]) / expected[s] for s in steps) < 1e-4
    last = torch.load(work_dir / f'epoch_{EPOCHS}.pth', weights_only=True)
    assert last['meta']['iter'] == EPOCHS * STEPS


@pytest.mark.timeout(600)
def test_killed_in_mid_epoch__resumes_from_the_last_epoch(
    tools: Tools, folder: Path, uninterrupted: Losses
) -> None:
    work_dir, config = folder / 'epoch', write_config(folder)
    kill_when(train(tools, config, work_dir), lambda: max(losses(work_dir), default=0) > STEPS + 10)
    assert not (work_dir / 'epoch_2.pth').exists()
    assert_resumes(tools, work_dir, config, uninterrupted)


@pytest.mark.timeout(600)
def test_killed_while_writing__the_file_is_absent_and_the_training_resumes(
    tools: Tools, folder: Path, uninterrupted: Losses
) -> None:
    work_dir = folder / 'write'
    more = "custom_imports = dict(imports=['effdet_plugin', 'die_in_write'])"
    result = train(tools, write_config(folder, 'run_and_die.py', more), work_dir).wait(600)
    assert result.code == -signal.SIGKILL, result
    assert not (work_dir / 'epoch_2.pth').exists()
    (work_dir / 'run_and_die.py').unlink()  # the repaired config is the run's own
    assert_resumes(tools, work_dir, write_config(folder), uninterrupted)
