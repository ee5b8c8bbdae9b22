"""The arguments that the scripts pass to torchrun, which a fake torchrun prints."""

import os
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    fake = tmp_path / 'torchrun'
    fake.write_text('#!/bin/sh\nfor argument in "$@"; do echo "$argument"; done\n')
    fake.chmod(0o755)
    settings = ('NNODES', 'NODE_RANK', 'MASTER_ADDR', 'PORT', 'PYTHON')
    kept = {key: value for key, value in os.environ.items() if key not in settings}
    return {**kept, 'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'}


def ask(environment: dict[str, str], script: str, *arguments: str) -> list[str]:
    command = ['bash', str(TOOLS / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_train__a_number_alone_is_d0(environment: dict[str, str]) -> None:
    asked = ask(environment, 'dist_train.sh', '8')
    assert '--nproc_per_node=8' in asked
    assert asked.index(str(TOOLS / 'train.py')) == len(asked) - 4
    config = Path(asked[-3])
    assert config.resolve() == TOOLS.parent / 'configs' / 'efficientdet' / 'd0_coco.py'
    assert asked[-2:] == ['--launcher', 'pytorch']


def test_train__config_and_arguments(environment: dict[str, str]) -> None:
    asked = ask(environment, 'dist_train.sh', 'my config.py', '2', '--amp', '--work-dir', 'a b')
    assert '--nproc_per_node=2' in asked
    assert asked[asked.index(str(TOOLS / 'train.py')) + 1 :] == [
        'my config.py', '--amp', '--work-dir', 'a b', '--launcher', 'pytorch',
    ]  # fmt: skip


def test_test__config_checkpoint_and_arguments(environment: dict[str, str]) -> None:
    asked = ask(environment, 'dist_test.sh', 'c.py', 'x.pth', '4', '--out', 'r.json')
    assert '--nproc_per_node=4' in asked
    assert asked[asked.index(str(TOOLS / 'test.py')) + 1 :] == [
        'c.py', 'x.pth', '--out', 'r.json', '--launcher', 'pytorch',
    ]  # fmt: skip


def test_infer__model_inputs_and_arguments(environment: dict[str, str]) -> None:
    asked = ask(environment, 'dist_infer.sh', '4', 'x.pth', 'a b', 'c', '--out', 'd')
    assert '--nproc_per_node=4' in asked
    assert asked[asked.index(str(TOOLS / 'infer.py')) + 1 :] == [
        'x.pth', 'a b', 'c', '--out', 'd', '--launcher', 'pytorch',
    ]  # fmt: skip


def test_nodes__as_in_mmdet(environment: dict[str, str]) -> None:
    nodes = {'NNODES': '2', 'NODE_RANK': '1', 'MASTER_ADDR': '10.0.0.1', 'PORT': '1234'}
    asked = ask({**environment, **nodes}, 'dist_train.sh', '8')
    assert asked[:4] == [
        '--nnodes=2', '--node_rank=1', '--master_addr=10.0.0.1', '--master_port=1234',
    ]  # fmt: skip
    del nodes['PORT']
    assert '--master_port=29500' in ask({**environment, **nodes}, 'dist_train.sh', '8')


def test_python__chooses_the_interpreter(environment: dict[str, str], tmp_path: Path) -> None:
    asked = ask({**environment, 'PYTHON': str(tmp_path / 'torchrun')}, 'dist_train.sh', '8')
    assert asked[:2] == [str(TOOLS / '_torchrun.py'), '--nnodes=1']


@pytest.mark.parametrize(
    ('script', 'arguments'),
    [
        ('dist_train.sh', []),
        ('dist_train.sh', ['c.py']),
        ('dist_train.sh', ['c.py', 'eight']),
        ('dist_train.sh', ['c.py', '0']),
        ('dist_test.sh', ['c.py', 'x.pth']),
        ('dist_infer.sh', ['2', 'x.pth']),
        ('dist_infer.sh', ['x.pth', 'a', 'b']),
    ],
)
def test_mistakes__exit_with_2(
    environment: dict[str, str], script: str, arguments: list[str]
) -> None:
    done = subprocess.run(
        ['bash', TOOLS / script, *arguments], env=environment, capture_output=True
    )
    assert done.returncode == 2
    assert done.stderr
    assert not done.stdout
