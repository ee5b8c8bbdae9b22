"""How every tool starts and ends; tried with a small tool in a clone of its own."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support import REPOSITORY

TOOLS = sorted((REPOSITORY / 'tools').glob('[!_]*.py'))
PROBE = """
import argparse
from _bootstrap import run

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('mode')
    mode = parser.parse_args().mode
    import effdet_plugin.errors
    if mode == 'user':
        raise effdet_plugin.errors.ConfigError('no such size; give one')
    if mode == 'bug':
        raise ValueError('ours')
    if mode == 'interrupt':
        raise KeyboardInterrupt
    if mode == 'many':
        for number in range(100_000):
            print(number)
    print(effdet_plugin.errors.__file__)
    return 3 if mode == 'three' else None

if __name__ == '__main__':
    run(main)
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with one tool, and what tools start with."""
    (tmp_path / 'tools').mkdir()
    (tmp_path / 'effdet_plugin').mkdir()
    (tmp_path / 'effdet_plugin' / '__init__.py').touch()
    for name in ('errors.py', 'other_names.py', 'shipped_configs.py'):
        shutil.copy(REPOSITORY / 'effdet_plugin' / name, tmp_path / 'effdet_plugin')
    shutil.copytree(REPOSITORY / 'effdet_plugin' / 'cli', tmp_path / 'effdet_plugin' / 'cli')
    shutil.copy(REPOSITORY / 'effdet_plugin_command.py', tmp_path)
    shutil.copy(REPOSITORY / 'tools' / '_bootstrap.py', tmp_path / 'tools')
    (tmp_path / 'tools' / 'probe.py').write_text(PROBE)
    return tmp_path


def start(clone: Path, *args: str, torch: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the probe; without ``torch`` by a Python that does not see its site-packages."""
    flags = [] if torch else ['-S']
    command = [sys.executable, *flags, str(clone / 'tools' / 'probe.py'), *args]
    environment = {name: text for name, text in os.environ.items() if name != 'PYTHONPATH'}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=environment
    )


@pytest.mark.parametrize(
    ('mode', 'code', 'last_error_line'),
    [
        ('fine', 0, ''),
        ('three', 3, ''),
        ('user', 2, 'error: no such size; give one'),
        ('bug', 1, 'ValueError: ours'),
        ('interrupt', 130, ''),
    ],
)
def test_run__exit_codes(clone: Path, mode: str, code: int, last_error_line: str) -> None:
    done = start(clone, mode)
    assert done.returncode == code
    assert (done.stderr.splitlines() or [''])[-1] == last_error_line
    assert ('Traceback' in done.stderr) is (mode == 'bug')


def test_run__closed_pipe(clone: Path) -> None:
    tool = f'"{sys.executable}" "{clone / "tools" / "probe.py"}" many'
    done = subprocess.run(
        ['bash', '-c', f'{tool} | head -1; exit ${{PIPESTATUS[0]}}'],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (141, '0\n', '')


def test_own_package_wins_over_the_installed_one(clone: Path) -> None:
    assert start(clone, 'fine').stdout.strip() == str(clone / 'effdet_plugin' / 'errors.py')


def test_without_torch__says_how_to_make_an_environment(clone: Path) -> None:
    done = start(clone, 'fine', torch=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: torch and mmdet not installed for ')
    assert line.endswith(f'bash {clone / "tools" / "setup.sh"}')


def test_without_torch__help_works(clone: Path) -> None:
    done = start(clone, '--help', torch=False)
    assert done.returncode == 0
    assert 'usage: probe.py' in done.stdout


def test_without_torch__starts_again_in_the_venv(clone: Path) -> None:
    python = clone / '.venv' / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "venv: $@"\n')
    python.chmod(0o755)
    done = start(clone, 'many words', '--flag', torch=False)
    assert done.stdout.strip() == f'venv: {clone / "tools" / "probe.py"} many words --flag'


@pytest.mark.parametrize('tool', TOOLS, ids=lambda path: path.name)
def test_tool__can_be_started(tool: Path) -> None:
    source = tool.read_text()
    assert source.startswith('#!/usr/bin/env python3\n')
    assert os.access(tool, os.X_OK), f'chmod +x {tool.name}'
    assert 'run(main)' in source
    on_load = [node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom)]
    assert '_bootstrap' in {node.module for node in on_load}


@pytest.mark.parametrize('tool', TOOLS, ids=lambda path: path.name)
def test_tool__help_needs_no_torch(tool: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'tools'
    for name in ('tools', 'effdet_plugin'):
        ignored = shutil.ignore_patterns('__pycache__')
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=ignored)
    shutil.copy(REPOSITORY / 'effdet_plugin_command.py', tmp_path)
    command = [sys.executable, '-S', str(folder / tool.name), '--help']
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert 'usage: ' in done.stdout
