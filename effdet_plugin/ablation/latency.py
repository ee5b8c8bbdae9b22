"""Latency of several networks in interleaved runs, so that other load affects all equally."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from mmdet.registry import MODELS
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from effdet_plugin.config import Options, load, parse_size
from effdet_plugin.costs import network_name

SIZE_ON_CPU = 256  # at the paper's sizes an image takes seconds on a CPU


class Latency(NamedTuple):
    """Time of one image through a network.

    Attributes:
        median_ms: Median of the rounds in milliseconds.
        spread_ms: Slowest minus fastest round in milliseconds.
    """

    median_ms: float
    spread_ms: float


def measure_configs(
    configs: Iterable[Path],
    rounds: int = 5,
    device: str | None = None,
    image_size: str | int | tuple[int, int] | None = None,
    options: Options | None = None,
) -> tuple[str, dict[str, Latency]]:
    """Build some configs' networks with random weights and time them.

    Args:
        configs: Config files.
        rounds: See `measure_latency`.
        device: torch device; the fastest available one if None.
        image_size: Input size of all; None: each config's own size, but 256 on a CPU.
        options: ``--cfg-options`` for all configs.

    Returns:
        How it was measured, in one line, and the latencies by `effdet_plugin.costs.network_name`.

    Raises:
        ConfigError: A config or the size cannot be used.
    """
    device = device or get_device()
    if image_size is None and device == 'cpu':
        image_size = SIZE_ON_CPU
    init_default_scope('mmdet')
    loaded = {network_name(path): load(path, options=options) for path in configs}
    sizes = {name: parse_size(image_size or cfg.image_size) for name, cfg in loaded.items()}
    models = {name: MODELS.build(cfg.model) for name, cfg in loaded.items()}
    size = 'its own size' if image_size is None else '{1}x{0}'.format(*parse_size(image_size))
    name = torch.cuda.get_device_name(device) if 'cuda' in device else f'{device}, '
    threads = '' if 'cuda' in device else f'{torch.get_num_threads()} threads'
    note = (
        f'ms: one image of {size} through the network on {name}{threads}, torch '
        f'{torch.__version__}, median (and range) of {rounds} interleaved rounds'
    )
    return note, measure_latency(models, sizes, rounds, device)


def measure_latency(
    models: Mapping[str, nn.Module],
    sizes: Mapping[str, tuple[int, int]],
    rounds: int = 5,
    device: torch.device | str = 'cpu',
) -> dict[str, Latency]:
    """Time networks (without pre- and post-processing, BN not folded) in interleaved runs.

    Args:
        models: Detectors by name; afterwards they are on the device, in evaluation mode.
        sizes: ``(height, width)`` of each input.
        rounds: Number of timed runs of each network, after one warm-up run.
        device: Where to run.
    """
    images = {name: torch.rand(1, 3, *sizes[name], device=device) for name in models}
    times: dict[str, list[float]] = {name: [] for name in models}
    for name, model in models.items():
        _run(model.to(device).eval(), images[name])
    for _ in range(rounds):
        for name, model in models.items():
            times[name].append(_run(model, images[name]))
    return {name: Latency(median(t), max(t) - min(t)) for name, t in times.items()}


@torch.inference_mode()
def _run(model: nn.Module, image: Tensor) -> float:
    """Return the time of one image ``(1, 3, H, W)`` in milliseconds."""
    if image.is_cuda:
        torch.cuda.synchronize(image.device)
    start = time.perf_counter()
    model(image, mode='tensor')
    if image.is_cuda:  # kernels run asynchronously
        torch.cuda.synchronize(image.device)
    return 1000 * (time.perf_counter() - start)
