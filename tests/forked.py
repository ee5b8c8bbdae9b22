"""Functions in processes of their own, forked from the tests' one: nothing is imported again."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch


def in_child(function: Callable[..., Any], *args: Any) -> int:
    """Call a function in a process of its own; return its exit code (-9 for killed)."""
    process = multiprocessing.get_context('fork').Process(target=_alone, args=(function, args))
    process.start()
    process.join()  # with a timeout it would wait for the loader's workers, too
    assert process.exitcode is not None
    return process.exitcode


def in_processes(number: int, function: Callable[..., Any], *args: Any) -> list[int]:
    """Call a function in several processes that find each other; return their exit codes."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context('fork')
    processes = []
    for rank in range(number):
        environment = {
            'RANK': str(rank),
            'LOCAL_RANK': str(rank),
            'WORLD_SIZE': str(number),
            'MASTER_ADDR': '127.0.0.1',
            'MASTER_PORT': str(port),
        }
        process = context.Process(target=_alone, args=(function, args, environment))
        process.start()
        processes.append(process)
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def _alone(
    function: Callable[..., Any], args: tuple[Any, ...], environment: dict[str, str] | None = None
) -> None:
    """What a forked process needs: no thread pool of its parent, its own place in the group."""
    torch.set_num_threads(1)
    os.environ.update(environment or {})
    function(*args)
    sys.stdout.flush()
    with suppress(AssertionError):
        torch.distributed.destroy_process_group()
