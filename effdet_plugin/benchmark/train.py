"""Time a training step in several forms, beside effdet's: one process each, in turns."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch

from effdet_plugin.benchmark.machine import describe
from effdet_plugin.benchmark.report import Measure, Report
from effdet_plugin.benchmark.settings import Settings
from effdet_plugin.benchmark.subjects import label_of
from effdet_plugin.benchmark.timing import Figures
from effdet_plugin.benchmark.train_worker import Variant, serve
from effdet_plugin.errors import ConfigError, UserError
from effdet_plugin.trained_model import device_of

WARM_UP = 2
# Largest relative difference of a loss from our plain form's. Where a box fits several anchors
# equally well, rounding decides which of them effdet takes: 13 of 3,069 targets in the tests.
BOUND, BF16_BOUND = 5e-3, 0.1


@dataclass
class Worker:
    """The process of a variant."""

    variant: Variant
    connection: Connection

    def ask(self, request: str) -> Any:
        """Send a request of `effdet_plugin.benchmark.train_worker.serve` and return the answer."""
        with self._alive():
            self.connection.send(request)
        return self.answer()

    def answer(self) -> Any:
        """Wait for an answer; an exception is raised here."""
        with self._alive():
            found = self.connection.recv()
        if isinstance(found, Exception):
            raise found
        return found

    @contextmanager
    def _alive(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            raise UserError(
                f'the process of {self.variant.name} has been killed, as happens when memory is '
                'short: all forms stay in memory, so give less of --forms, or a smaller --batch'
            ) from error


def measure(settings: Settings, tell: Callable[[str], None]) -> Report:
    """Measure.

    Args:
        settings: ``batches`` are timed one after the other; of ``forms``, those of `variants` are
            meant.
        tell: Told what is being done.

    Raises:
        ConfigError: The variants do not compute the same loss.
    """
    device = device_of(settings.device)
    threads = settings.threads or torch.get_num_threads()
    report = Report(describe(device, threads), [])
    for batch in settings.batches:
        prefix = f'train/b{batch}/{label_of(settings.models[0], settings)}'
        with workers_of(settings, batch, tell) as workers:
            compare(workers)
            figures = time_steps(workers, settings.rounds, tell)
            for worker in workers:
                name = worker.variant.name
                figures[name].peak_mb = worker.ask('peak')
                operators = worker.ask('operators')
                extra = {'operators': operators}
                note = f'{operators} operators, {figures[name].peak_mb:.0f} MB'
                own = Measure(f'{prefix} {name}', figures[name], batch, '', note, extra)
                report.measures.append(own)
        _relate(report, prefix, workers)
    return report


def variants(settings: Settings) -> list[Variant]:
    """Return what is trained: ours in each form, effdet as its users run it and as well as it can.

    glibc gives freed memory back to the system unless told otherwise; ``tools/train.py`` tells it.
    """
    made = [
        Variant('eager'),
        Variant('channels_last', channels_last=True),
        Variant('bf16', channels_last=True, is_bf16=True),
        Variant('recompute', channels_last=True, switch='model.recompute_norm_act'),
        Variant('checkpoint', channels_last=True, switch='model.with_cp'),
    ]
    chosen = [variant for variant in made if variant.name in settings.forms]
    if not chosen:
        names = ', '.join(variant.name for variant in made)
        raise ConfigError(f'--forms has none of {names}, which a training step has')
    if settings.against:
        chosen.append(Variant('effdet', is_rival=True, keeps_memory=False))
        chosen += [
            Variant(
                f'effdet {own.name}, memory kept',
                is_rival=True,
                channels_last=own.channels_last,
                is_bf16=own.is_bf16,
            )
            for own in chosen
            if not own.is_rival and not own.switch
        ]
    return chosen


@contextmanager
def workers_of(
    settings: Settings, batch: int, tell: Callable[[str], None]
) -> Iterator[list[Worker]]:
    """Start all processes, one after the other, and end them."""
    context = get_context('spawn')  # CUDA and the threads of torch do not survive a fork
    started: list[Any] = []
    workers: list[Worker] = []
    try:
        for variant in variants(settings):
            tell(f'building {variant.name}')
            here, there = context.Pipe()
            process = context.Process(
                target=serve, args=(there, variant, settings, batch), daemon=True
            )
            process.start()
            there.close()  # so that the end of the process is noticed
            started.append(process)
            workers.append(Worker(variant, here))
            workers[-1].answer()
        yield workers
    finally:
        for process in started:
            process.kill()


def compare(workers: list[Worker]) -> None:
    """Refuse to time things that do not compute the same."""
    first, *others = [(worker.variant, worker.ask('loss')) for worker in workers]
    for variant, losses in others:
        bound = BF16_BOUND if variant.is_bf16 or first[0].is_bf16 else BOUND
        for name, value in losses.items():
            if not math.isclose(value, first[1][name], rel_tol=bound):
                raise ConfigError(
                    f'{variant.name} does not compute the same as {first[0].name}: {name} loss '
                    f'{value:.6g}, {first[1][name]:.6g}'
                )


def time_steps(
    workers: list[Worker], rounds: int, tell: Callable[[str], None]
) -> dict[str, Figures]:
    """Time training steps in turns; times by the name of the variant."""
    figures: dict[str, Figures] = {worker.variant.name: Figures() for worker in workers}
    for number in range(-WARM_UP, rounds):
        for worker in workers:
            tell(f'{worker.variant.name}, round {number}')
            wall, cpu = worker.ask('step')
            if number >= 0:
                figures[worker.variant.name].wall_ms.append(wall)
                figures[worker.variant.name].cpu_ms.append(cpu)
    return figures


def _relate(report: Report, prefix: str, workers: list[Worker]) -> None:
    """Relate all to effdet as its users run it, and say what the best forms make of each other."""
    known = [worker.variant for worker in workers]
    reference = f'{prefix} {next((v.name for v in known if v.is_rival), known[0].name)}'
    for measure in report.measures:
        if measure.name.startswith(prefix) and measure.name != reference:
            measure.against = reference
    plain = report.to_dict()

    def best(is_rival: bool, is_bf16: bool) -> tuple[str, float] | None:
        able = [v.name for v in known if v.is_rival == is_rival and v.is_bf16 == is_bf16]
        times = {name: plain[f'{prefix} {name}']['median_ms'] for name in able}
        return min(times.items(), key=lambda item: item[1]) if times else None

    theirs = best(True, False)
    for ours in (best(False, False), best(False, True)):
        if ours and theirs:
            ratio = theirs[1] / ours[1]
            line = f'{prefix}: {ours[0]} is {ratio:.2f} x as fast as {theirs[0]} (wall time)'
            report.notes.append(line)
