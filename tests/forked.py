"""Functions in processes of their own, forked from one that has the imports and nothing else.

Not from the tests' process: autograd forbids forks where it has threads for a device, which are
those of a GPU, or of the stand-in for one that `torch.export` makes where a CUDA build finds none.
"""

import faulthandler
import gc
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from typing import Any

import torch

from support import dont_format_configs

_PATIENCE_S = 240  # less than the limit of a test, which cannot say where its child stands
# In this order: our package makes mmdet importable.
_IMPORTS = ['effdet_plugin', 'mmdet.apis', 'mmdet.evaluation', 'pytest', 'hypothesis', 'support']


def in_child(function: Callable[..., Any], *args: Any) -> int:
    """Call a function in a process of its own; return its exit code (-9 for killed)."""
    process = _started(function, args)
    process.join()  # with a timeout it would wait for the loader's workers, too
    assert process.exitcode is not None
    return process.exitcode


def in_processes(number: int, function: Callable[..., Any], *args: Any) -> list[int | None]:
    """Call a function in several processes that find each other; return their exit codes."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    group = {'WORLD_SIZE': number, 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port}
    end = multiprocessing.get_context('forkserver').Barrier(number)
    processes = [
        _started(function, args, {**group, 'RANK': rank, 'LOCAL_RANK': rank}, end)
        for rank in range(number)
    ]
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def _started(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    variables: dict[str, Any] | None = None,
    end: Barrier | None = None,
) -> ForkServerProcess:
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(_IMPORTS)
    environment = {**os.environ, **{name: str(x) for name, x in (variables or {}).items()}}
    process = context.Process(target=_alone, args=(function, args, environment, end))
    process.start()
    return process


def _alone(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    environment: dict[str, str],
    end: Barrier | None,
) -> None:
    """Set up the process, call the function, and wait for the others of its group."""
    faulthandler.dump_traceback_later(_PATIENCE_S, exit=True, file=2)
    gc.freeze()  # mmengine collects garbage with every dataset that it builds
    os.environ.clear()  # the server's are those of the test that started it
    os.environ.update(environment)
    torch.set_num_threads(1)
    dont_format_configs()
    function(*args)
    sys.stdout.flush()
    if end is not None:
        # Nobody closes connections that another one still reads from: that one hung once.
        end.wait(_PATIENCE_S)
    faulthandler.cancel_dump_traceback_later()
