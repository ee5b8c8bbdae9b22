"""The machine of a measurement, described without its name."""

import os
import platform
from pathlib import Path
from typing import Any

import torch

import effdet_plugin

_CPU_FLAGS = ('avx2', 'avx512f', 'avx512_bf16', 'amx_bf16')


def describe(device: torch.device, threads: int) -> dict[str, Any]:
    """Return the machine as plain data for JSON.

    Args:
        device: Where the measured calls compute.
        threads: Number of threads that they may use.
    """
    name, flags = _cpu()
    plain: dict[str, Any] = {
        'cpu': name,
        'cores': os.cpu_count(),
        'cpu_flags': flags,
        'threads': threads,
        'load': round(os.getloadavg()[0], 2) if hasattr(os, 'getloadavg') else None,
        'torch': torch.__version__,
        'python': platform.python_version(),
        'effdet_plugin': effdet_plugin.__version__,
    }
    if device.type == 'cuda':
        plain['gpu'] = torch.cuda.get_device_name(device)
    return plain


def in_words(machine: dict[str, Any]) -> str:
    """Return the description as a line."""
    place = f'{machine["gpu"]}; ' if 'gpu' in machine else ''
    return (
        f'{place}{machine["cpu"]}, {machine["cores"]} cores ({" ".join(machine["cpu_flags"])}), '
        f'{machine["threads"]} thread(s), torch {machine["torch"]}, load {machine["load"]}'
    )


def _cpu() -> tuple[str, list[str]]:
    """Return model name and instruction sets, from Linux' list where there is one."""
    try:
        text = Path('/proc/cpuinfo').read_text(encoding='utf-8')
    except OSError:
        return platform.processor() or platform.machine(), []
    entries: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(':')
        entries[key.strip()] = value.strip()
    name = entries.get('model name') or platform.machine()
    known = entries.get('flags', '').split()
    return name, [flag for flag in _CPU_FLAGS if flag in known]
