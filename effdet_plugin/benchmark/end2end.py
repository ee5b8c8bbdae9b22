"""Time from image files to detections and drawn images, with its parts."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from mmdet.structures import DetDataSample

from effdet_plugin.benchmark.effdet_rival import NO_NMS, RivalDetector
from effdet_plugin.benchmark.machine import describe
from effdet_plugin.benchmark.report import Measure, Report, joined
from effdet_plugin.benchmark.settings import Settings
from effdet_plugin.benchmark.subjects import image_files, label_of, make_detector
from effdet_plugin.benchmark.timing import TOTAL, Figures, Stopwatch, in_turns
from effdet_plugin.config import find_sizes, parse_size
from effdet_plugin.errors import ConfigError
from effdet_plugin.export.runtime import is_runtime_file
from effdet_plugin.images import read_image
from effdet_plugin.inference import Detector
from effdet_plugin.inference.draw import Drawable, draw_boxes
from effdet_plugin.trained_model import device_of, load_trained

PARTS = ('decode', 'prepare', 'network', 'post-processing', 'drawing')
DETECT = 'file to detections'  # the sum of all parts but drawing, which effdet does not do
DRAWN_ABOVE = 0.3
SOFT, HARD = 'soft', 'hard'
Detect = Callable[[Sequence[Path], Stopwatch], Any]


class TimedDetector:
    """A `Detector` whose parts are timed; it computes what the detector computes.

    Args:
        detector: Of a checkpoint or of an exported file.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def __call__(self, files: Sequence[Path], watch: Stopwatch) -> list[DetDataSample]:
        """Detect and draw; the parts are `PARTS`."""
        images = [read_image(file) for file in files]
        watch.lap('decode')
        with _marks(self._detector.model, watch):
            samples = self._detector(images)
        watch.lap('post-processing')
        for image, sample in zip(images, samples, strict=True):
            drawable = Drawable.of(sample.pred_instances, DRAWN_ABOVE)
            draw_boxes(image, drawable, self._detector.classes)
        watch.lap('drawing')
        return samples


def measure(settings: Settings, tell: Callable[[str], None] = lambda _: None) -> Report:
    """Time detectors from files to detections, in turns.

    Args:
        settings: What is measured; a model that is no file runs as it is and in its fast form, with
            each method of ``nms``.
        tell: Told what is being done.

    Returns:
        For each batch size and detector ``end2end/b<batch>/<model> <form>``, which is
        `DETECT` without drawing, and ``.../<part>``. ``speedup`` is relative to the rival's eager
        form, else to the first detector.

    Raises:
        UserError: A model cannot be loaded.
    """
    settings.check()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = device_of(settings.device)
    measures: list[Measure] = []
    notes = [
        f'median of {settings.rounds} rounds in turns; per image, without drawing, which is '
        f'timed apart (scores above {DRAWN_ABOVE})',
        'prepare: resize, pad, collate, normalise; post-processing: NMS and results',
    ]
    with tempfile.TemporaryDirectory() as folder:
        files = image_files(settings, Path(folder))
        for batch in settings.batches:
            calls = _calls(settings, batch, tell)
            measures += _measure_batch(calls, files, batch, settings, device, tell)
            rivals = [call for call in calls.values() if isinstance(call, RivalDetector)]
            if any(not rival.has_nms for rival in rivals) and NO_NMS not in notes:
                notes.append(NO_NMS)
    return Report(describe(device, torch.get_num_threads()), measures, notes)


def _calls(settings: Settings, batch: int, tell: Callable[[str], None]) -> dict[str, Detect]:
    """Return the detectors by name."""
    calls: dict[str, Detect] = {}
    for model in settings.models:
        label = label_of(model, settings)
        tell(f'load {label}')
        if is_runtime_file(model):
            calls[label] = TimedDetector(make_detector(model, settings, batch))
            continue
        for method in settings.nms:
            kind = HARD if method == 'hard' else SOFT
            for form in ('eager', 'fast'):
                if form in settings.forms:
                    detector = make_detector(model, settings, batch, form == 'fast', kind)
                    _set_threshold(detector, settings, method)
                    calls[f'{label} {form}, {kind} NMS'] = TimedDetector(detector)
        if settings.against:
            calls |= _rivals(model, settings)
    if not calls:
        raise ConfigError('end2end: --forms leaves nothing; it knows eager and fast')
    return calls


def _set_threshold(detector: Detector, settings: Settings, method: str) -> None:
    """Give the post-processor the score threshold: what is below it costs nothing then."""
    head: Any = getattr(detector.model, 'bbox_head', None)
    if hasattr(head, 'postprocessor'):
        kind = type(head.postprocessor)
        head.postprocessor = kind(**settings.postprocessing(detector.config, method))


def _rivals(model: str, settings: Settings) -> dict[str, Detect]:
    trained = load_trained(
        settings.config,
        model,
        device_of(settings.device),
        image_size=settings.image_size,
        options=settings.options,
    )
    size = parse_size(next(find_sizes(trained.config.test_dataloader))[1])
    forms = {'effdet eager': False}
    if 'compiled' in settings.forms:
        forms['effdet compiled'] = True
    return {name: RivalDetector(trained, size, compiled) for name, compiled in forms.items()}


def _measure_batch(
    calls: dict[str, Detect],
    files: Sequence[Path],
    batch: int,
    settings: Settings,
    device: torch.device,
    tell: Callable[[str], None],
) -> list[Measure]:
    """Time one batch size; all detectors get the same files in the same order."""
    endless = {name: cycle(files) for name in calls}

    def run(name: str, watch: Stopwatch) -> None:
        calls[name](list(islice(endless[name], batch)), watch)

    timed = {name: partial(run, name) for name in calls}
    figures = in_turns(
        timed, settings.rounds, device, report=lambda name: tell(f'batch {batch}: {name}')
    )
    prefix = f'end2end/b{batch}/'
    base = next((name for name in calls if name.startswith('effdet ')), next(iter(calls)))
    measures = []
    for name, parts in figures.items():
        total = _without_drawing(parts)
        against = '' if name == base else prefix + base
        shares = {part: parts[part].to_dict(batch)['median_ms'] for part in PARTS if part in parts}
        note = joined([f'{part} {value:.1f}' for part, value in shares.items()])
        measures.append(Measure(prefix + name, total, batch, against, note))
        measures += [
            Measure(f'{prefix}{name}/{part}', parts[part], batch) for part in PARTS if part in parts
        ]
    return measures


def _without_drawing(parts: dict[str, Figures]) -> Figures:
    """Return the time from files to detections of each round."""
    total = parts[TOTAL]
    drawing = parts.get('drawing')
    if drawing is None:
        return total
    return Figures(
        [a - b for a, b in zip(total.wall_ms, drawing.wall_ms, strict=True)],
        [a - b for a, b in zip(total.cpu_ms, drawing.cpu_ms, strict=True)],
        total.peak_mb,
    )


@contextmanager
def _marks(model: Any, watch: Stopwatch) -> Iterator[None]:
    """Let the end of preparation and of the network end laps of a watch."""

    def prepared(*_: Any) -> None:
        watch.lap('prepare')

    def computed(*_: Any) -> None:
        watch.lap('network')

    hooks = [model.data_preprocessor.register_forward_hook(prepared)]
    # Of an exported file, the call of the runtime is the network, with all that the file contains.
    inner = getattr(model, 'bbox_head', model)
    if inner is not model:
        hooks.append(inner.register_forward_hook(computed))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        return
    runtime = model.runtime

    def timed(images: Any) -> Any:
        found = runtime(images)
        watch.lap('network')
        return found

    model.runtime = timed
    try:
        yield
    finally:
        model.runtime = runtime
        for hook in hooks:
            hook.remove()
