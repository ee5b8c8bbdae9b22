"""The console command: help, mistakes and completion need no packages; parts register when used."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from effdet_plugin import __version__
from effdet_plugin.cli import main as cli
from effdet_plugin.cli.train import choose_device
from effdet_plugin.errors import ConfigError
from support import REPOSITORY

START = 'import effdet_plugin_command as c; c.main()'


def python(*words: str, bare: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a Python that finds the clone; ``bare``: without its site-packages."""
    return subprocess.run(
        [sys.executable, '-W', 'ignore', *(['-S'] if bare else []), *words],
        capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, 'PYTHONPATH': str(REPOSITORY)},
    )  # fmt: skip


@pytest.mark.parametrize(
    'start', [['-c', START], ['-m', 'effdet_plugin']], ids=['script', 'module']
)
def test_help__needs_no_packages(start: list[str]) -> None:
    done = python(*start)
    assert done.returncode == 0, done.stderr
    assert all(f'\n  {name} ' in done.stdout for name in cli.COMMANDS)
    done = python(*start, 'train', '--help')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('usage: efficientdet train ')
    assert 'efficientdet train --data DIR' in done.stdout


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_command__has_help_and_function(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = cli.load(name)
    assert callable(module.run)
    with pytest.raises(SystemExit) as ended:
        cli.main([name, '--help'])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f'usage: efficientdet {name} ')
    assert '%(prog)' not in printed


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['trian'], "trian: no such command; did you mean 'train'?"),
        (['quux'], 'quux: no such command (train, test, predict'),
        (['test', 'd0_coco'], 'd0_coco is a config: give MODEL after it'),
        (['predict', 'none', 'a.jpg'], 'MODEL none (random weights) needs a CONFIG'),
        (['train', '--epochs', 'many'], "argument --epochs: invalid int value: 'many'; "),
        (
            ['train', '--model', 'xyz', '--data', '.'],
            '--model xyz: neither a network nor a config; ',
        ),
    ],
)
def test_mistakes__are_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'error: {message}')


@pytest.mark.parametrize(
    ('words', 'hint'),
    [
        ('train --num-epochs 5', '--epochs for --num-epochs?'),
        ('train --imgsz 640 --bs 8', '--image-size for --imgsz, --batch-size for --bs?'),
        ('train --learning_rate .1', '--lr for --learning_rate?'),
        ('train --gpus 0', '--device for --gpus?'),
        ('train --weight-decay 1', '--cfg-options optim_wrapper.optimizer.weight_decay=VALUE for'),
        ('test best.pth --conf .5', '--cfg-options model.test_cfg.score_thr=VALUE for --conf?'),
        ('train --dta DIR', '--data for --dta?'),
    ],
)
def test_unknown_option__is_answered_by_meaning(
    words: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words.split())
    assert ended.value.code == 2
    assert hint in capsys.readouterr().err.splitlines()[-1]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(['--version'])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.skipif(shutil.which('bash') is None, reason='needs bash')
@pytest.mark.parametrize(
    ('words', 'expected'),
    [
        (['efficientdet', 'pre'], ['predict']),
        (['efficientdet', 'train', '--epo'], ['--epochs']),
        (['efficientdet', 'test', '--da'], ['--data']),
        (['efficientdet', 'train', 'some'], []),  # then bash completes file names
    ],
)
def test_completion(words: list[str], expected: list[str], tmp_path: Path) -> None:
    script = tmp_path / 'completion'
    script.write_text(cli.completion('bash'))
    text = f'source {script}; COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; '
    text += '_efficientdet; echo "${COMPREPLY[@]}"'
    done = subprocess.run(['bash', '-c', text], capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected


def test_missing_paths__are_told_before_large_imports() -> None:
    """At once, where torch and mmdet take seconds."""
    text = """
import sys
import effdet_plugin_command
from effdet_plugin.cli import main as cli
for words in ('train --data no', 'test no.pth', 'predict no.pth a.jpg', 'export no.pth --format '
              'onnx', 'benchmark network no.pth', 'test d0_coco none --data no'):
    try:
        cli.main(words.split())
    except SystemExit as ended:
        assert ended.code == 2
assert not {'torch', 'mmdet'} & sys.modules.keys()
"""
    done = python('-c', text, bare=False)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 6, lines
    assert lines[1] == 'error: no.pth: no such file or folder'


def test_register__when_a_command_needs_it() -> None:
    """A registering package first: it must not run twice."""
    text = """
import sys
import effdet_plugin_command, effdet_plugin.cli.main
assert not {'torch', 'mmdet'} & sys.modules.keys()
import effdet_plugin.task_modules
from mmdet.registry import HOOKS, MODELS, TASK_UTILS
assert MODELS.get('BiFPN') and HOOKS.get('AtomicCheckpointHook')
assert TASK_UTILS.get('BatchMaxIoUAssigner') is effdet_plugin.task_modules.BatchMaxIoUAssigner
"""
    done = python('-c', text, bare=False)
    assert done.returncode == 0, done.stderr


def test_choose_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for device, kind, visible in [
        (None, None, 'as before'),
        ('cuda', 'cuda', 'as before'),
        ('cuda:1', 'cuda', '1'),
        ('cpu', 'cpu', ''),
    ]:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', 'as before')
        assert choose_device(device) == kind
        assert os.environ['CUDA_VISIBLE_DEVICES'] == visible
    for device in ('gpu', 'cuda:x', '1'):
        with pytest.raises(ConfigError, match=f'--device {device}: give cpu, cuda'):
            choose_device(device)
