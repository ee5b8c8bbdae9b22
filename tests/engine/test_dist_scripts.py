"""The scripts ask torchrun for what was said; a stand-in for it prints what it was asked."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    fake = tmp_path / 'torchrun'
    fake.write_text('#!/bin/sh\nfor argument in "$@"; do echo "$argument"; done\n')
    fake.chmod(0o755)
    settings = ('NNODES', 'NODE_RANK', 'MASTER_ADDR', 'PORT', 'PYTHON', 'CUDA_VISIBLE_DEVICES')
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
    assert asked[:2] == ['-m', 'torch.distributed.run']


@pytest.mark.parametrize(
    ('script', 'arguments'),
    [
        ('dist_train.sh', []),
        ('dist_train.sh', ['c.py']),
        ('dist_train.sh', ['c.py', 'eight']),
        ('dist_train.sh', ['c.py', '0']),
        ('dist_test.sh', ['c.py', 'x.pth']),
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


def stand_in(folder: Path, name: str, *lines: str) -> None:
    (folder / name).write_text('\n'.join(['#!/bin/sh', *lines, '']))
    (folder / name).chmod(0o755)


def fail(environment: dict[str, str], *arguments: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        ['bash', TOOLS / 'dist_train.sh', *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize('before', ['', 'train.py: '])
def test_failure__the_last_line_repeats_what_the_first_process_said(
    environment: dict[str, str], tmp_path: Path, before: str
) -> None:
    said = [f'{before}error: /data: no such folder', 'error: no peer', 'Traceback: error: x']
    stand_in(tmp_path, 'torchrun', *(f"echo '{line}' >&2" for line in said), 'exit 1')
    code, lines = fail(environment, '2')
    assert code == 2
    assert lines[-4:-1] == said
    assert lines[-1] == (
        f"error: train.py failed; the first line that begins with '{before}error:' says why: "
        '/data: no such folder'
    )


@pytest.mark.parametrize(
    ('said', 'own'), [('RuntimeError: NCCL error: x', 1), ('killed', 137), ('error: late', 0)]
)
def test_failure__without_such_a_line_keeps_the_exit_code(
    environment: dict[str, str], tmp_path: Path, said: str, own: int
) -> None:
    stand_in(tmp_path, 'torchrun', f"echo '{said}' >&2", f'exit {own}')
    code, lines = fail(environment, '2')
    assert (code, lines[-1]) == (own, said)


@pytest.mark.parametrize('name', ['SIGINT', 'SIGTERM', 'SIGHUP'])
def test_signal__goes_on_to_torchrun_which_ends_by_itself(
    environment: dict[str, str], tmp_path: Path, name: str
) -> None:
    stand_in(
        tmp_path,
        'torchrun',
        *("trap 'sleep 0.3; echo stopped; exit 7' INT TERM HUP", "echo 'error: x' >&2"),
        *('echo ready', 'for _ in $(seq 100); do sleep 0.1; done'),
    )
    number = getattr(signal, name)
    with subprocess.Popen(
        ['bash', TOOLS / 'dist_train.sh', '2'],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A suite that was started in the background ignores it, and so would the script.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as script:
        assert script.stdout
        assert script.stdout.readline() == 'ready\n'
        script.send_signal(number)
        out, err = script.communicate(timeout=30)
    assert (script.returncode, out) == (7, 'stopped\n')
    assert 'error: x' in err.splitlines()
    assert 'failed' not in err


@pytest.mark.parametrize(
    ('there', 'chosen', 'processes', 'line'),
    [
        (0, None, 8, 'no GPU: 8 processes on CPUs'),
        (0, '0', 1, 'no GPU: 1 process on CPUs'),
        (2, '', 2, 'no GPU: 2 processes on CPUs'),
        (2, '-1', 2, 'no GPU: 2 processes on CPUs'),
        (2, None, 4, 'warning: GPUS is 4, but 2 '),
        (8, '0,3', 4, 'warning: GPUS is 4, but 2 '),
        (4, None, 4, ''),
        (8, '5,6', 2, ''),
    ],
)
def test_gpus__too_few_or_none_is_said_in_one_line(
    environment: dict[str, str],
    tmp_path: Path,
    there: int,
    chosen: str | None,
    processes: int,
    line: str,
) -> None:
    listed = [f"echo 'GPU {n}: H100 (UUID: GPU-{n})'; echo '  MIG 1g'" for n in range(there)]
    stand_in(tmp_path, 'nvidia-smi', *listed, '' if there else 'exit 9')
    visible = {} if chosen is None else {'CUDA_VISIBLE_DEVICES': chosen}
    code, lines = fail({**environment, **visible}, str(processes))
    assert code == 0
    assert len(lines) == bool(line)
    assert ''.join(lines).startswith(line)
