"""Detect objects in sources of all kinds; write a drawing of each and one JSON file for all.

Three threads work at once: one decodes, one runs the network, and the caller's draws and writes.
Only a few images wait between them, and detections are written at once, so that memory stays flat.
"""

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from mmdet.structures import DetDataSample
from tqdm import tqdm  # type: ignore[import-untyped]

from effdet_plugin.errors import DatasetError
from effdet_plugin.inference.background import in_background
from effdet_plugin.inference.detector import Detector
from effdet_plugin.inference.draw import Drawable, draw_boxes
from effdet_plugin.inference.drawings import Drawings, Window
from effdet_plugin.inference.reading import Frames, Remark, Shot, read_sources
from effdet_plugin.inference.results import (
    InferenceResult,
    PredictionsFile,
    coco_rows,
    writing_predictions,
)
from effdet_plugin.inference.selection import check_score_thr
from effdet_plugin.inference.sources import Kind, Source, from_file
from effdet_plugin.inference.stopping import Stopping

Detected = tuple[Shot, DetDataSample]
_AHEAD = 2  # images that wait between two threads, or a batch


@dataclass(frozen=True)
class InferOptions:
    """Options of `infer`.

    Args:
        score_thr: Detections with a lower score are neither written nor drawn. A detector with a
            lower threshold of its own lets `infer` tell the highest score where there is nothing.
        frames: Which frames of videos are taken.
        show: Show the drawings in a window, too.

    Raises:
        ConfigError: The threshold is not from 0 to 1.
    """

    score_thr: float = 0.0
    frames: Frames = field(default_factory=Frames)
    show: bool = False

    def __post_init__(self) -> None:
        """Check the threshold."""
        check_score_thr(self.score_thr)


def infer_files(detector: Detector, files: Sequence[Path], out_dir: Path) -> InferenceResult:
    """Detect objects in files, with the detector's own threshold; see `infer`."""
    return infer(detector, [from_file(file) for file in files], out_dir)


def infer(
    detector: Detector,
    sources: Sequence[Source],
    out_dir: Path | str,
    options: InferOptions | None = None,
) -> InferenceResult:
    """Write the drawings of all sources to ``out_dir/vis``, and ``out_dir/predictions.json``.

    Ctrl-C, a closed window or the key q end the work; all that is written by then is complete.

    Args:
        detector: Its own threshold comes first; its ``batch_size`` images are taken at once.
        sources: From `find_sources`; for one that cannot be read, the result has a line in
            ``unreadable``.
        out_dir: Created if it is missing; files of an earlier call are replaced one by one.
        options: See there.

    Raises:
        DatasetError: The only source given cannot be read.
        InstallError: Nothing can be shown here.
        WriteError: The disk is full, or the folder cannot be written.
    """
    out_dir = Path(out_dir)
    drawings = Drawings(out_dir / 'vis')
    return infer_into(
        detector, sources, out_dir / 'predictions.json', drawings, options or InferOptions()
    )


def infer_into(
    detector: Detector,
    sources: Sequence[Source],
    file: Path,
    drawings: Drawings,
    options: InferOptions,
    is_part: bool = False,
) -> InferenceResult:
    """Do what `infer` does, into places of the caller's.

    Args:
        detector: See `infer`.
        sources: See `infer`.
        file: For the rows.
        drawings: For the drawings; entered here.
        options: See `infer`.
        is_part: These are some sources of many: there is no progress bar, and also the only one
            that cannot be read is a line.
    """
    result = InferenceResult(file)
    items = _detect(detector, sources, options)
    with ExitStack() as opened:
        # The window first: without a display nothing is started.
        window = opened.enter_context(closing(Window())) if options.show else None
        opened.enter_context(closing(items))
        first = next(items, None)
        if isinstance(first, Remark) and len(sources) == 1 and first.is_unreadable and not is_part:
            raise DatasetError(first.text)
        every = chain([first] if first is not None else [], items)
        rows = opened.enter_context(writing_predictions(result.file))
        opened.enter_context(drawings)
        bar = opened.enter_context(_progress(sources, is_hidden=is_part))
        stopping = opened.enter_context(Stopping())
        work = _Work(detector.classes, options.score_thr, result, rows, drawings, window)
        try:
            while True:
                with stopping.waiting():
                    item = next(every, None)
                if item is None or not work.take(item, bar):
                    break
        except KeyboardInterrupt:
            result.is_interrupted = True
    result.num_objects = rows.num_rows
    result.remarks += drawings.remarks
    return result


@dataclass
class _Work:
    """What is done with each image: select, write, draw."""

    classes: Sequence[str]
    score_thr: float
    result: InferenceResult
    rows: PredictionsFile
    drawings: Drawings
    window: Window | None
    source: Source | None = None  # whose frames the progress bar counts

    def take(self, item: Detected | Remark, bar: Any) -> bool:
        """Write what is known of an image or frame; return whether to go on."""
        if isinstance(item, Remark):
            lines = self.result.unreadable if item.is_unreadable else self.result.remarks
            lines.append(item.text)
            if item.skipped is not None:
                bar.update()
                self.result.num_skipped += item.skipped.kind is Kind.IMAGE
                if item.skipped.kind in (Kind.IMAGE, Kind.VIDEO):
                    self.drawings.skip(item.skipped)
            return True
        shot, sample = item
        self._count(shot, bar)
        found = sample.pred_instances[sample.pred_instances.scores >= self.score_thr]
        if not len(found):
            self._note_highest(shot, sample)
        sample.pred_instances = found
        time_s = None if shot.frame is None else shot.time_s
        self.rows.write(
            coco_rows(sample, self.classes, shot.image_id, shot.source.name, shot.frame, time_s)
        )
        drawn = draw_boxes(shot.image, Drawable.of(found), self.classes)
        self.drawings.write(shot, drawn)
        bar.update()
        self.result.is_interrupted = bool(self.window and not self.window.show(shot, drawn))
        return not self.result.is_interrupted

    def _count(self, shot: Shot, bar: Any) -> None:
        self.result.num_read += 1
        self.result.num_frames += shot.frame is not None
        if shot.frame is None or shot.source is self.source:
            return
        self.source = shot.source
        known = shot.num_frames and bar.total
        bar.total = bar.total - 1 + shot.num_frames if known else None

    def _note_highest(self, shot: Shot, sample: DetDataSample) -> None:
        highest = max(sample.pred_instances.scores.tolist(), default=0.0)
        if highest > self.result.highest[0]:
            where = '' if shot.frame is None else f', frame {shot.frame}'
            self.result.highest = highest, f'{shot.source.name}{where}'


def _progress(sources: Sequence[Source], is_hidden: bool) -> Any:
    """Return a progress bar of images, or of frames if there may be any."""
    is_images = all(source.kind is Kind.IMAGE for source in sources)
    name, unit = ('images', 'img') if is_images else ('frames', 'frame')
    return tqdm(total=len(sources), desc=name, unit=unit, disable=is_hidden)


def _detect(
    detector: Detector, sources: Sequence[Source], options: InferOptions
) -> Generator[Detected | Remark, None, None]:
    """Yield the detections of all images and frames; reading and network run in threads."""
    ahead = max(_AHEAD, detector.batch_size)
    read = in_background(read_sources(sources, options.frames), ahead)
    return in_background(_run(detector, read), ahead)


def _run(
    detector: Detector, items: Generator[Shot | Remark, None, None]
) -> Generator[Detected | Remark, None, None]:
    """Run the network on batches."""
    batch: list[Shot] = []
    with closing(items):
        for item in chain(items, [None]):
            is_full = len(batch) == detector.batch_size
            if batch and (is_full or not isinstance(item, Shot)):
                yield from zip(batch, detector([shot.image for shot in batch]), strict=True)
                batch = []
            if isinstance(item, Shot):
                batch.append(item)
            elif item is not None:
                yield item
