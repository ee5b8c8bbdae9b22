"""The tools as people start them: arguments in; exit code, output and files out.

`Tools` forks the processes from one that has imported everything (fork_server.py): an import takes
longer than most of them. ``EFFDET_TEST_REAL_PROCESSES=1`` starts a Python for each instead.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
FAULTS = HERE / 'integration'  # has the fault hook, which configs import
TIMEOUT = 120.0
MARK = 'EFFDET_TEST_COMMAND'  # a variable of the processes that are not forked
_THREADS = dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), '1')


def environment(**more: str) -> dict[str, str]:
    """That of a process of one thread that finds the fault hook, and the server on this machine."""
    path = os.pathsep.join([str(FAULTS), os.environ.get('PYTHONPATH', '')])
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith('_proxy')}
    return {**kept, **_THREADS, 'PYTHONPATH': path, **more}


@dataclass(frozen=True)
class Result:
    """How a command has ended: exit code (negative: the signal), both streams."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return (
            f'exit code {self.code}\n--- stdout\n{self.out[-2500:]}\n--- stderr\n{self.err[-2500:]}'
        )

    @property
    def text(self) -> str:
        """Both streams."""
        return self.out + self.err

    def must_succeed(self) -> 'Result':
        """Exit code 0, and no traceback on the way."""
        assert self.code == 0, self
        assert 'Traceback' not in self.text, self
        return self

    def must_be_refused(self, *words: str) -> str:
        """Exit code 2 and one line ``error: ...`` with these words; return the line.

        Progress bars and lines ``warning: ...`` may stand before it.
        """
        assert self.code == 2, self
        assert 'Traceback' not in self.text, self
        lines = [line for line in self.err.splitlines() if line.strip() and '%|' not in line]
        lines = [line for line in lines if not line.startswith('warning: ')]
        assert len(lines) == 1, self
        assert lines[0].startswith('error: '), self
        for word in words:
            assert word.lower() in lines[0].lower(), (word, self)
        return lines[0]


@dataclass
class Started:
    """A command that runs; its process leads a session of its own."""

    tools: 'Tools'
    pid: int
    out: Path
    err: Path
    process: subprocess.Popen[bytes] | None = None
    code: int | None = field(default=None, init=False)

    def poll(self) -> int | None:
        """Exit code, None while it runs."""
        if self.code is None:
            self.code = self.process.poll() if self.process else self.tools.ask({'poll': self.pid})
        return self.code

    def wait(self, timeout: float = TIMEOUT) -> Result:
        """Wait for its end, and end it where that takes too long."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.end()
                raise AssertionError(f'runs for more than {timeout} s\n{self.err.read_text()}')
            time.sleep(0.02)
        code, out, err = self.code, self.out, self.err
        assert code is not None
        return Result(code, *(path.read_text(errors='replace') for path in (out, err)))

    def wait_for(self, path: Path, timeout: float = TIMEOUT) -> None:
        """Wait until it has made a file."""
        deadline = time.monotonic() + timeout
        while not path.exists():
            assert self.poll() is None, self.wait()
            assert time.monotonic() < deadline, f'{path} is not made\n{self.err.read_text()}'
            time.sleep(0.02)

    def family(self) -> list[int]:
        """Its processes that still run: torchrun gives each rank a session of its own."""
        mark = f'{MARK}={self.err}\0'.encode()
        return [pid for pid in _processes() if _session(pid) == self.pid or mark in _environ(pid)]

    def must_leave_nobody(self, timeout: float = 10.0) -> None:
        """All its processes end within some seconds."""
        deadline = time.monotonic() + timeout
        while self.family():
            if time.monotonic() > deadline:
                left = self.family()
                self.end()
                raise AssertionError(f'processes {left} outlive the command')
            time.sleep(0.05)

    def end(self) -> None:
        """Kill what is left of it."""
        for pid in self.family():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


class Tools:
    """Starts tools, and ends what is left of them when the block ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Started] = []
        self.server: subprocess.Popen[str] | None = None

    def __enter__(self) -> 'Tools':
        return self

    def __exit__(self, *_: object) -> None:
        for started in self.started:
            started.end()
        if self.server is not None:
            self.server.kill()  # it has nothing to lose, and Python's end takes a second
            self.server.wait()

    def ask(self, request: dict[str, Any]) -> Any:
        """Ask the server, which starts with the first question."""
        if self.server is None:
            command = [sys.executable, '-W', 'ignore', str(HERE / 'fork_server.py')]
            self.server = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment(PYTHONPATH=os.pathsep.join([str(REPOSITORY), str(FAULTS)])),
                cwd=self.folder,
            )
            assert self.server.stdout is not None
            assert self.server.stdout.readline() == 'ready\n'
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        print(json.dumps(request), file=self.server.stdin, flush=True)
        return json.loads(self.server.stdout.readline())

    def start(
        self,
        tool: str | Path,
        *arguments: object,
        umask: int = 0o022,
        powerless: bool = False,
        cwd: Path | None = None,
        **env: str,
    ) -> Started:
        """Start ``tools/TOOL``.

        Args:
            tool: name of the script, or path of one elsewhere, or ``-c``.
            *arguments: as on the command line.
            umask: of the process.
            powerless: without root's rights over modes of files.
            cwd: its working directory; None: that of all.
            **env: further variables of its environment.
        """
        out, err = (self.folder / f'{len(self.started)}.{name}' for name in ('out', 'err'))
        cwd = cwd or self.folder
        tool = str(tool)
        script = tool if tool == '-c' else str(REPOSITORY / 'tools' / tool)
        argv = [script, *map(str, arguments)]
        if tool.endswith('.sh') or (os.environ.get('EFFDET_TEST_REAL_PROCESSES') and not powerless):
            command = ['bash' if tool.endswith('.sh') else sys.executable, *argv]
            with out.open('wb') as to_out, err.open('wb') as to_err:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=to_out,
                    stderr=to_err,
                    cwd=cwd,
                    env=environment(**env, **{MARK: str(err)}),
                    umask=umask,
                    start_new_session=True,
                )
            started = Started(self, process.pid, out, err, process)
        else:
            request = dict(argv=argv, out=str(out), err=str(err), cwd=str(cwd))
            request |= dict(env=env, umask=umask, powerless=powerless)
            for path in (out, err):
                path.touch()
            started = Started(self, self.ask(request), out, err)
        self.started.append(started)
        return started

    def run(self, tool: str, *arguments: object, **settings: Any) -> Result:
        """Start a tool and wait for it; see `start`."""
        return self.start(tool, *arguments, **settings).wait()

    def train(self, config: Path, work_dir: Path, *options: object, **settings: Any) -> Result:
        """Run ``tools/train.py``; see `start_training`."""
        return self.start_training(config, work_dir, *options, **settings).wait()

    def start_training(
        self, config: Path, work_dir: Path, *options: object, fault: str = '', **settings: Any
    ) -> Started:
        """Start ``tools/train.py`` with a fault (see fault_hook.py); other settings as `start`."""
        arguments = (config, '--work-dir', work_dir, *options)
        return self.start('train.py', *arguments, FAULT=fault, **settings)


def _processes() -> list[int]:
    return [int(path.name) for path in Path('/proc').iterdir() if path.name.isdigit()]


def _environ(pid: int) -> bytes:
    """Environment that a process was started with; empty if it has ended."""
    try:
        return Path(f'/proc/{pid}/environ').read_bytes() if _session(pid) > 0 else b''
    except OSError:
        return b''


def _session(pid: int) -> int:
    """Session of a process; -1 if it has ended."""
    try:
        state, *fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return -1 if state in 'ZX' else int(fields[2])
