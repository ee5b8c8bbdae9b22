"""Time of the network, and of network and post-processing, in all forms and exported files."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from effdet_plugin.benchmark import effdet_rival
from effdet_plugin.benchmark.forms import (
    RAW,
    WHOLE,
    Arrays,
    Form,
    difference,
    file_form,
    form_of,
    network_forms,
    whole_form,
)
from effdet_plugin.benchmark.machine import describe
from effdet_plugin.benchmark.report import Measure, Report, joined
from effdet_plugin.benchmark.settings import Settings
from effdet_plugin.benchmark.subjects import Subject, as_file_takes, image_files, subject
from effdet_plugin.benchmark.timing import TOTAL, Stopwatch, in_turns
from effdet_plugin.config.options import parse_options
from effdet_plugin.errors import ConfigError
from effdet_plugin.files import RGBImage
from effdet_plugin.images import read_image
from effdet_plugin.trained_model import device_of

# Of fp32 forms; above it something else is computed. Rounding gives 2e-4 for random weights.
MAX_DIFFERENCE = 0.02
MAX_UNMATCHED = 0.1  # near-equal candidates may change places
REFERENCE = 'fast'  # folded and channels_last: what exported files are compared with


@dataclass
class Entry:
    """A form of a model with its images.

    Attributes:
        name: For the table.
        form: The call.
        inputs: From a batch size to what the call takes.
        key: Entries of one key should compute the same.
        rival: Whether ``speedup`` relates to it.
        kind: Entries of one key and kind have the same network in the same form.
    """

    name: str
    form: Form
    inputs: Callable[[int], Any]
    key: tuple[Any, ...]
    rival: bool = False
    kind: str = ''


def measure(settings: Settings, tell: Callable[[str], None] = lambda _: None) -> Report:
    """Time networks and exported files in turns.

    Args:
        settings: What is measured.
        tell: Told what is being done.

    Returns:
        For each batch size and form a measure ``network/b<batch>/<model> <form>``. ``speedup`` is
        relative to the first model's ``fast`` form; with a rival it is the rival's time over ours.
        ``of_network`` is the time of a whole detector over that of its network alone, where both
        are measured: a checkpoint's ``fast`` form, or a file of raw outputs.

    Raises:
        UserError: A model cannot be loaded, or two forms do not compute the same.
    """
    settings.check()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = device_of(settings.device)
    with tempfile.TemporaryDirectory() as folder:
        images = [read_image(path) for path in image_files(settings, Path(folder))]
    entries = [
        entry
        for model in settings.models
        for entry in _entries(
            subject(model, settings, images, max(settings.batches)), settings, images, tell
        )
    ]
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        raise ConfigError(f'two models have the same file name: {", ".join(sorted(names))}')
    notes = compare(entries, tell)
    measures: list[Measure] = []
    for batch in settings.batches:
        measures += _measure_batch(entries, batch, settings, device, notes, tell)
    machine = describe(device, torch.get_num_threads())
    return Report(machine, measures, _notes(settings))


def latencies(configs: Sequence[Path], settings: Settings) -> tuple[list[float], str]:
    """Time one image through networks with random weights, in their ``fast`` form.

    Args:
        configs: Config files.
        settings: The device, threads, rounds, image size and options.

    Returns:
        Milliseconds of each, medians, and the device in some words.

    Raises:
        UserError: A config cannot be used.
    """
    options = {**parse_options(settings.options or {}), 'model.backbone.pretrained': False}
    one = replace(
        settings, models=['none'], batches=[1], forms=(REFERENCE,), nms=(), options=options
    )
    reports = [measure(replace(one, config=config)) for config in configs]
    times = [float(report.measures[0].figures.to_dict()['median_ms']) for report in reports]
    machine = reports[0].machine
    return times, machine.get('gpu') or f'{machine["threads"]} thread(s) of {machine["cpu"]}'


def compare(entries: Sequence[Entry], tell: Callable[[str], None]) -> dict[str, str]:
    """Run every entry once and compare the outputs of those that should be equal.

    Returns:
        A remark for each entry.

    Raises:
        ConfigError: A form that computes in float32 differs.
    """
    references: dict[str, tuple[str, Arrays]] = {}
    notes: dict[str, str] = {}
    for entry in entries:
        tell(f'compare {entry.name}')
        form = entry.form
        with torch.inference_mode():
            found = form.arrays(form.run(entry.inputs(1)))
        group = json.dumps([entry.key, form.end, dict(form.nms or {}), form.input], sort_keys=True)
        if group not in references:
            references[group] = (entry.name, found)
            continue
        other, expected = references[group]
        error = difference(found, expected, form.end)
        bound = MAX_UNMATCHED if form.end == WHOLE else MAX_DIFFERENCE
        if form.is_exact and not error <= bound:
            raise ConfigError(
                f'{entry.name} differs from {other} by {error:.2g}, which is no rounding: nothing '
                'is timed; was the file exported from this checkpoint and config?'
            )
        unmatched = form.end == WHOLE
        notes[entry.name] = (
            f'{1 - error:.1%} of detections equal' if unmatched else f'differs by {error:.1g}'
        )
    return notes


def _entries(
    given: Subject, settings: Settings, images: Sequence[RGBImage], tell: Callable[[str], None]
) -> list[Entry]:
    """Return a model's forms: network first, then network and post-processing."""
    tell(f'load {given.label}')
    if given.runtime is not None:
        form = file_form(given.runtime, '')
        inputs = partial(as_file_takes, given.inputs, images, given.runtime)
        known = given.runtime.metadata
        kind = f'{known.format} {known.precision} {known.input}'
        return [Entry(given.label, form, inputs, given.key, kind=kind)]
    assert given.trained is not None
    batch = given.inputs
    forms = network_forms(given.trained, given.size, settings)
    if hasattr(given.trained.model.bbox_head, 'postprocessor'):
        model = form_of(given.trained.model, REFERENCE, given.size)
        for method in settings.nms:
            nms = settings.postprocessing(given.trained.config, method)
            forms.append(whole_form(model, f'{REFERENCE} + {method} NMS', nms))
    entries = [
        Entry(
            f'{given.label} {form.name}',
            form,
            lambda n: batch[:n],
            given.key,
            kind=REFERENCE if form.end == WHOLE else form.name,
        )
        for form in forms
    ]
    if settings.against:
        rivals = effdet_rival.network_forms(given.trained, given.size, 'compiled' in settings.forms)
        entries += [
            Entry(form.name, form, lambda n: batch[:n], given.key, rival=True) for form in rivals
        ]
    return entries


def _measure_batch(
    entries: Sequence[Entry],
    batch: int,
    settings: Settings,
    device: torch.device,
    notes: dict[str, str],
    tell: Callable[[str], None],
) -> list[Measure]:
    prefix = f'network/b{batch}/'
    inputs = {entry.name: entry.inputs(batch) for entry in entries}

    def call(entry: Entry, _watch: Stopwatch) -> None:
        entry.form.run(inputs[entry.name])

    calls = {entry.name: partial(call, entry) for entry in entries}
    figures = in_turns(
        calls, settings.rounds, device, report=lambda name: tell(f'batch {batch}: {name}')
    )
    measures = [
        Measure(
            prefix + entry.name, figures[entry.name][TOTAL], batch, note=notes.get(entry.name, '')
        )
        for entry in entries
    ]
    base = _base(entries)
    for measure, entry in zip(measures, entries, strict=True):
        if base and entry.name != base:
            measure.against = prefix + base
        measure.extra['end'] = entry.form.end
    is_one_thread = device.type == 'cpu' and torch.get_num_threads() == 1
    relate_to_networks(entries, measures, 'cpu_ms' if is_one_thread else 'median_ms')
    return measures


def relate_to_networks(entries: Sequence[Entry], measures: Sequence[Measure], time: str) -> None:
    """Say how long whole detectors take, in times of their networks.

    Args:
        entries: What was measured.
        measures: Of the entries; changed.
        time: Which figure is compared.
    """
    networks = {
        (entry.key, entry.kind): measure.figures.to_dict()[time]
        for entry, measure in zip(entries, measures, strict=True)
        if entry.form.end == RAW
    }
    for entry, measure in zip(entries, measures, strict=True):
        alone = networks.get((entry.key, entry.kind))
        if entry.form.end == WHOLE and alone:
            ratio = measure.figures.to_dict()[time] / alone
            measure.extra['of_network'] = round(ratio, 3)
            measure.note = joined([f'{ratio:.2f} x its network', measure.note])


def _base(entries: Sequence[Entry]) -> str:
    """Return the entry that ``speedup`` relates to: the rival's fastest kind, or our fast form."""
    raw = [entry for entry in entries if entry.form.end == RAW]
    rivals = [entry.name for entry in raw if entry.rival]
    fast = [entry.name for entry in raw if entry.name.endswith(f' {REFERENCE}')]
    return next(iter([*rivals, *fast, *(entry.name for entry in raw)]), '')


def _notes(settings: Settings) -> list[str]:
    base = 'effdet, eager' if settings.against else f'the first {REFERENCE} form'
    return [
        f'speedup: over {base}; in CPU time where one thread computes, else in wall time',
        f'{settings.rounds} rounds in turns; fast = folded and channels_last; files and rivals are '
        f'compared with our forms first; post-processing of checkpoints at score > '
        f'{settings.score_thr}',
    ]
