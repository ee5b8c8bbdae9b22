"""Decisions of tools/setup.sh, with fakes of Python and pip that record their arguments.

``run_tests.sh`` runs the real set-up before these tests.
"""

import os
import platform
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from unittest.mock import patch

import pytest
from packaging.requirements import Requirement

from support import REPOSITORY

PYTHON = """#!/usr/bin/env bash
case "$*" in
  '-m venv '*) mkdir -p "${@: -1}/bin"; cp "$0" "${@: -1}/bin/python" ;;
  *'pip --version') ;;
  *'index versions torch') echo "Available versions: $FAKE_VERSIONS" ;;
  *'pip '*' torchvision=='*) echo "${*:4}" >> "$FAKE_LOG"; exit "${FAKE_TORCHVISION:-0}" ;;
  '-m pip '*) echo "${*:4}" >> "$FAKE_LOG"; exit "${FAKE_PIP:-0}" ;;
  '-c import torch') exit "${FAKE_HAS_TORCH:-1}" ;;
  *signal.alarm*) exit "$FAKE_INDEX" ;;
  *importlib.metadata*) echo "$FAKE_TORCH" ;;
  '-') exit 1 ;;
  --version) echo 'Python 3.11.7' ;;
esac
"""
no_gpu_and_cuda_by_default = pytest.mark.skipif(
    Path('/proc/driver/nvidia/version').exists()
    or shutil.which('nvidia-smi') is not None
    or (platform.system(), platform.machine()) != ('Linux', 'x86_64'),
    reason='the default torch is the right one here',
)


class Clone:
    """A repository with the set-up only, and the recorded calls of its pip."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.log = root / 'log'
        shutil.copytree(REPOSITORY / 'requirements', root / 'requirements')
        (root / 'tools').mkdir()
        shutil.copy(REPOSITORY / 'tools' / 'setup.sh', root / 'tools')
        self.python = root / 'python'
        self.python.write_text(PYTHON)
        self.python.chmod(0o755)

    def setup(self, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        defaults = {'FAKE_VERSIONS': '2.13.0', 'FAKE_INDEX': '1', 'FAKE_TORCH': '2.13.0'}
        environment = {**os.environ, 'PYTHON': str(self.python), 'FAKE_LOG': str(self.log)}
        environment.pop('EFFDET_TORCH_PIP_ARGS', None)
        return subprocess.run(
            ['bash', str(self.root / 'tools' / 'setup.sh'), *args],
            env={**environment, **defaults, **variables},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def pip_calls(self) -> list[str]:
        calls = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return calls


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_setup__torch_first_then_the_lock_then_nothing(clone: Clone) -> None:
    done = clone.setup()
    assert done.returncode == 0, done.stderr
    torch, lock = clone.pip_calls()
    assert torch.endswith(f'-r {clone.root}/requirements/torch.txt')
    assert lock == f'install -q --no-deps -r {clone.root}/.venv/lock.txt'
    again = clone.setup()
    assert (again.returncode, again.stdout, clone.pip_calls()) == (0, '', [])


def test_setup__dev_comes_on_top_once(clone: Clone) -> None:
    clone.setup()
    clone.pip_calls()
    clone.setup('--dev')
    (call,) = clone.pip_calls()
    assert call.endswith(f'--no-deps --no-build-isolation -r {clone.root}/requirements/dev.txt')
    clone.setup('--dev')
    clone.setup()
    assert clone.pip_calls() == []


@pytest.mark.parametrize('name', ['lock.txt', 'torch.txt'])
def test_setup__runs_again_when_a_pin_changes(clone: Clone, name: str) -> None:
    clone.setup()
    clone.pip_calls()
    with (clone.root / 'requirements' / name).open('a') as file:
        file.write('einops==0.8.0\n')
    clone.setup()
    assert len(clone.pip_calls()) == 2


def test_setup__a_failure_is_not_taken_for_done(clone: Clone) -> None:
    assert clone.setup(FAKE_PIP='7').returncode == 7
    assert len(clone.pip_calls()) == 1
    assert clone.setup().returncode == 0
    assert len(clone.pip_calls()) == 2


def test_setup__another_torch_gets_its_torchvision(clone: Clone) -> None:
    clone.setup(FAKE_TORCH='2.14.1')
    lock = (clone.root / '.venv' / 'lock.txt').read_text()
    assert re.findall(r'^torchvision.*$', lock, re.MULTILINE) == ['torchvision==0.29.*']


@no_gpu_and_cuda_by_default
@pytest.mark.parametrize(
    ('variables', 'arguments', 'said'),
    [
        ({'FAKE_VERSIONS': '2.14.0, 2.13.0+cpu, 2.13.0'}, '', 'the CPU build that pip finds'),
        ({'FAKE_INDEX': '0'}, '--extra-index-url https://', "PyTorch's CPU build"),
        ({}, '', 'with CUDA'),
        ({'EFFDET_TORCH_PIP_ARGS': '--find-links /w --pre'}, '--find-links /w --pre -r', '/w'),
    ],
)
def test_setup__choice_of_torch(
    clone: Clone, variables: dict[str, str], arguments: str, said: str
) -> None:
    done = clone.setup(**variables)
    call, *others = clone.pip_calls()
    assert call.startswith(f'install -q {arguments}'.strip())
    assert ('http' in call) is ('http' in arguments)
    # torchvision comes from the same index, before the lock, which only names its version.
    [options] = re.findall('^install -q (.*)-r ', call)
    own = [f'install -q --no-deps {options}torchvision=={pins()["torchvision"]}']
    assert others[:-1] == (own if options else [])
    assert said in done.stdout


def test_setup__an_index_without_torchvision_is_no_failure(clone: Clone) -> None:
    done = clone.setup(EFFDET_TORCH_PIP_ARGS='--find-links /w', FAKE_TORCHVISION='1')
    assert done.returncode == 0, done.stderr
    assert 'without its compiled operators' in done.stdout
    assert clone.pip_calls()[-1] == f'install -q --no-deps -r {clone.root}/.venv/lock.txt'


def test_setup__a_torch_that_is_there_keeps_its_index_for_torchvision(clone: Clone) -> None:
    clone.setup(EFFDET_TORCH_PIP_ARGS='--find-links /w')
    clone.pip_calls()
    with (clone.root / 'requirements' / 'lock.txt').open('a') as file:
        file.write('einops==0.8.0\n')
    done = clone.setup(FAKE_HAS_TORCH='0')
    assert 'already there' in done.stdout
    needs, torchvision, _ = clone.pip_calls()
    assert 'torch-needs' in needs
    assert torchvision.startswith('install -q --no-deps --find-links /w torchvision==')


def test_setup__needs_a_python(clone: Clone) -> None:
    done = clone.setup(PYTHON='/nonexistent/python')
    assert done.returncode == 2
    assert done.stderr.startswith('error: no Python 3.11 or later')


def test_setup__help_and_mistakes(clone: Clone) -> None:
    assert clone.setup('--help').returncode == 0
    wrong = clone.setup('--fast')
    assert wrong.returncode == 2
    assert 'setup.sh --dev' in wrong.stdout
    assert clone.pip_calls() == []


def pins() -> dict[str, str]:
    """Name -> version of every line of the three files."""
    found: dict[str, str] = {}
    for name in ('torch.txt', 'lock.txt', 'dev.txt'):
        for line in (REPOSITORY / 'requirements' / name).read_text().splitlines():
            if not line.startswith('#'):
                package, version = re.fullmatch(r'([\w.-]+)==([\w.+]+)', line).groups()  # type: ignore[union-attr]
                key = package.lower().replace('_', '-')
                assert key not in found, f'{package} is pinned twice'
                found[key] = version
    return found


@pytest.mark.parametrize('extra', ['', 'openmmlab', 'dev', 'h5', 'lite-weights'])
def test_lock__satisfies_the_ranges(extra: str) -> None:
    with patch('setuptools.setup') as setup:
        runpy.run_path(str(REPOSITORY / 'setup.py'))
    arguments = setup.call_args.kwargs
    ranges = arguments['extras_require'][extra] if extra else arguments['install_requires']
    locked = pins()
    for requirement in map(Requirement, ranges):
        assert requirement.specifier.contains(locked[requirement.name]), requirement


def test_setup_py__configs_travel_in_the_wheel() -> None:
    with patch('setuptools.setup') as setup:
        runpy.run_path(str(REPOSITORY / 'setup.py'))
    folders = setup.call_args.kwargs['package_dir']
    assert folders['effdet_plugin.configs.efficientdet'] == 'configs/efficientdet'
    assert set(folders) <= set(setup.call_args.kwargs['packages'])
