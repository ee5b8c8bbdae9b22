"""What a training step allocates in several forms, beside effdet's, and what that costs in time.

Torch's own allocations are counted: the process holds more, as its C library or a caching
allocator leaves gaps (the column ``peak`` of the mode ``train``).
"""

from collections.abc import Callable

import torch

from effdet_plugin.benchmark.machine import describe
from effdet_plugin.benchmark.report import Measure, Report
from effdet_plugin.benchmark.settings import Settings
from effdet_plugin.benchmark.subjects import label_of
from effdet_plugin.benchmark.train import compare, time_steps, workers_of
from effdet_plugin.trained_model import device_of


def measure(settings: Settings, tell: Callable[[str], None]) -> Report:
    """Measure; every form relates to the first one.

    Args:
        settings: As for the mode ``train``.
        tell: Told what is being done.

    Raises:
        ConfigError: The forms do not compute the same loss.
    """
    threads = settings.threads or torch.get_num_threads()
    report = Report(describe(device_of(settings.device), threads), [])
    for batch in settings.batches:
        prefix = f'memory/b{batch}/{label_of(settings.models[0], settings)}'
        with workers_of(settings, batch, tell) as workers:
            compare(workers)
            times = time_steps(workers, settings.rounds, tell)
            first = None
            for worker in workers:
                name, found = worker.variant.name, worker.ask('memory')
                first = first or found
                ratios = [f'{found[key] / first[key]:.2f}' for key in ('kept', 'largest')]
                note = (
                    f'{found["kept"]:.0f} MB kept for backward ({ratios[0]}), largest '
                    f'{found["largest"]:.0f} MB ({ratios[1]})'
                )
                extra = {'kept_mb': found['kept'], 'largest_mb': found['largest']}
                against = f'{prefix} {workers[0].variant.name}' if worker is not workers[0] else ''
                row = Measure(f'{prefix} {name}', times[name], batch, against, note, extra)
                report.measures.append(row)
    return report
