"""The processes of torchrun that share the files of one inference."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from effdet_plugin.engine.one_run import end_with_parent
from effdet_plugin.errors import ConfigError

EXIT_LOST = 3  # of a process that has lost another one; tools/_torchrun.py looks for the other
_PATIENCE = timedelta(days=7)  # a process may wait for another's last video


@dataclass(frozen=True)
class Workers:
    """The processes of a call.

    Attributes:
        rank: Number of this one, from 0.
        count: Number of all.
    """

    rank: int = 0
    count: int = 1

    def from_first(self, value: Any) -> Any:
        """Return what the first process gives, in all of them."""
        if self.count == 1:
            return value
        values = [value]
        with _losses_end():
            dist.broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            with _losses_end():
                dist.barrier()


@contextmanager
def torchrun_workers() -> Iterator[Workers]:
    """Yield the processes that torchrun has started, connected over gloo.

    Raises:
        ConfigError: It was not torchrun that started this one.
    """
    if 'RANK' not in os.environ:
        raise ConfigError('--launcher pytorch: start it by tools/dist_infer.sh GPUS ...')
    end_with_parent()
    with _losses_end():
        dist.init_process_group('gloo', timeout=_PATIENCE)
    try:
        yield Workers(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@contextmanager
def _losses_end() -> Iterator[None]:
    """End this process if another one is gone, which has said why."""
    try:
        yield
    except RuntimeError as error:  # gloo's; torch.distributed.DistError is one
        raise SystemExit(EXIT_LOST) from error


def device_of_process() -> str | None:
    """Return the GPU of this process of torchrun's; None without GPUs."""
    count = torch.cuda.device_count()
    return f'cuda:{int(os.environ.get("LOCAL_RANK", 0)) % count}' if count else None
