"""Times of several calls taken in turns (A B C A B C), so that other load meets all equally."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

TOTAL = 'total'


@dataclass
class Figures:
    """Times of one thing over the rounds.

    Attributes:
        wall_ms: Elapsed time of each round.
        cpu_ms: CPU time of the process in each round, all its threads together.
        peak_mb: Largest memory that torch held on the GPU; None on other devices.
    """

    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    peak_mb: float | None = None

    def to_dict(self, per: int = 1) -> dict[str, float]:
        """Return medians and percentiles for JSON.

        Args:
            per: Number of images in a call; the times are of one image.
        """
        low, middle, high = (float(x) / per for x in np.percentile(self.wall_ms, (10, 50, 90)))
        plain = {'median_ms': middle, 'p10_ms': low, 'p90_ms': high}
        plain['cpu_ms'] = float(np.median(self.cpu_ms)) / per
        if self.peak_mb is not None:
            plain['peak_mb'] = self.peak_mb
        return {name: round(value, 3) for name, value in plain.items()}


class Stopwatch:
    """Takes the time of a call and of its parts.

    Args:
        device: On a GPU each lap waits until its work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.laps: dict[str, tuple[float, float]] = {}
        self._start = self._last = self._now()

    def lap(self, name: str) -> None:
        """End a part; the time since the last lap is added to what it has already."""
        now = self._now()
        self._add(name, self._last, now)
        self._last = now

    def stop(self) -> None:
        """Set the total."""
        self._add(TOTAL, self._start, self._now())

    def _add(self, name: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        wall, cpu = self.laps.get(name, (0.0, 0.0))
        self.laps[name] = (wall + end[0] - start[0], cpu + end[1] - start[1])

    def _now(self) -> tuple[float, float]:
        if self._device.type == 'cuda':  # kernels run asynchronously
            torch.cuda.synchronize(self._device)
        return 1000 * time.perf_counter(), 1000 * time.process_time()


def in_turns(
    calls: Mapping[str, Callable[[Stopwatch], object]],
    rounds: int,
    device: torch.device,
    warm_up: int = 2,
    report: Callable[[str], None] | None = None,
) -> dict[str, dict[str, Figures]]:
    """Time calls in turns.

    Args:
        calls: By name; each may end parts by `Stopwatch.lap`.
        rounds: Number of timed calls of each.
        device: Where they compute.
        warm_up: Number of calls of each before.
        report: Told what is being timed.

    Returns:
        By name and part; the part `TOTAL` is the whole call.
    """
    figures: dict[str, dict[str, Figures]] = {name: {} for name in calls}
    for number in range(-warm_up, rounds):
        for name, call in calls.items():
            if report:
                report(name)
            if device.type == 'cuda':
                torch.cuda.reset_peak_memory_stats(device)
            watch = Stopwatch(device)
            with torch.inference_mode():
                call(watch)
            watch.stop()
            if number >= 0:
                _store(figures[name], watch, device)
    return figures


def _store(figures: dict[str, Figures], watch: Stopwatch, device: torch.device) -> None:
    for part, (wall, cpu) in watch.laps.items():
        figure = figures.setdefault(part, Figures())
        figure.wall_ms.append(wall)
        figure.cpu_ms.append(cpu)
    if device.type == 'cuda':
        total = figures[TOTAL]
        total.peak_mb = max(total.peak_mb or 0.0, torch.cuda.max_memory_allocated(device) / 2**20)
