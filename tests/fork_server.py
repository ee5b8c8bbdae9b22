"""Run by command_lines.py: starts tools in forked processes, so that all is imported once.

A started process is what ``python TOOL ARGUMENTS`` makes of the same tool: its own session,
streams, environment, signal handlers and exit. Requests are lines of json on stdin, answers on
stdout.
"""

import ctypes
import gc
import json
import os
import runpy
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

# The package first: it makes mmdet importable. Its inner modules are the tools' own affair.
HEAVY = ('effdet_plugin', 'effdet_plugin.config', 'mmdet.apis', 'mmdet.evaluation')
_CAPABILITIES_VERSION_3 = 0x20080522


def become_powerless() -> None:
    """Give up root's right to write where the mode of a file forbids it."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION_3, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), 'capset')


def become_tool(request: dict[str, Any]) -> None:
    """Turn this process into one that was started for the tool, and run it."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number, path in enumerate((os.devnull, request['out'], request['err'])):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
        os.dup2(os.open(path, flags), number)
    os.environ.clear()  # the server's are those of the test that started it
    os.environ.update(request['env'])
    os.chdir(request['cwd'])
    os.umask(request['umask'])
    if request['powerless']:
        become_powerless()
    tool, sys.argv = request['argv'][0], request['argv']
    place = '' if tool == '-c' else str(Path(tool).parent)
    sys.path[:1] = [place, *request['env'].get('PYTHONPATH', '').split(os.pathsep)]
    if tool == '-c':
        sys.argv = ['-c', *request['argv'][2:]]
        exec(compile(request['argv'][1], '<string>', 'exec'), {'__name__': '__main__'})
    else:
        runpy.run_path(tool, run_name='__main__')


def poll(pid: int) -> int | None:
    """Exit code of a started process (negative: the signal), None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def main() -> None:
    """Serve until stdin ends."""
    for name in HEAVY:
        import_module(name)
    # More than half of a tiny training's time is yapf, which formats the config.
    vars(import_module('mmengine.config.config'))['FormatCode'] = lambda text, **_: (text, True)
    gc.freeze()  # data sets collect garbage when they are built: of theirs, not of all imports
    print('ready', flush=True)
    while line := sys.stdin.readline():
        request = json.loads(line)
        if 'poll' in request:
            print(json.dumps(poll(request['poll'])), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            return become_tool(request)  # leaves main, so that Python ends as it always does
        print(pid, flush=True)


if __name__ == '__main__':
    main()
