"""Our tools on the command line: help without torch, mistakes as one line with exit code 2."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import REPOSITORY

TOOLS = ('train', 'test', 'model_table', 'check_dataset')


def _run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    return subprocess.run(
        [sys.executable, '-W', 'ignore', *command],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=240,
        check=False,
    )


def _tool(name: str) -> str:
    return str(REPOSITORY / 'tools' / f'{name}.py')


@pytest.mark.parametrize('name', TOOLS)
def test_help__needs_no_torch(name: str) -> None:
    done = _run('-S', _tool(name), '--help')  # without installed packages
    assert done.returncode == 0, done.stderr
    assert '--cfg-options' in done.stdout
    assert '--image-size' in done.stdout


@pytest.mark.parametrize('name', TOOLS)
def test_tool__can_be_started_by_its_name(name: str) -> None:
    assert os.access(_tool(name), os.X_OK)
    assert Path(_tool(name)).read_text().startswith('#!/usr/bin/env python3\n')


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['train', 'configs/efficientdet/d0_coco.py', '--work-dir', 'w'], '--data DIR'),
        (
            ['test', 'configs/efficientdet/d0_coco.py', 'none', '--cfg-options', 'model.nek.x=1'],
            "'neck'",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else '',
)
def test_tool__a_mistake_is_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    name, config, *rest = arguments
    done = _run(_tool(name), str(REPOSITORY / config), *rest, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith('error: ')
    assert words in done.stderr
    assert done.stderr.count('\n') == 1
    assert list(tmp_path.iterdir()) == []
