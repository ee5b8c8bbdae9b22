"""All files of a network beside PyTorch, on many images: the figures of the documented tables."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from effdet_plugin.errors import CheckpointError, ConfigError
from effdet_plugin.export import check
from effdet_plugin.export.api import (
    COMPANIONS,
    FORMATS,
    Options,
    metadata_of,
    program_of,
    with_nms,
)
from effdet_plugin.export.metadata import Metadata
from effdet_plugin.export.reference import Reference
from effdet_plugin.export.runtime import Array, Outputs, load_runtime
from effdet_plugin.trained_model import TrainedModel

# What a file ends with, in a word: the NMS in it, or its outputs.
ENDS: dict[str, dict[str, Any]] = {
    'hard': {'end': 'postprocess', 'nms': 'hard'},
    'soft': {'end': 'postprocess', 'nms': 'soft'},
    'decoded': {'end': 'decoded'},
    'raw': {'end': 'raw'},
}
# Those of one network in float32; .tflite has a network form and an NMS of its own.
FILES = ('onnx', 'openvino', 'pt2')
_REFERENCE_BATCH = 4

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """A file beside PyTorch at one batch size.

    Attributes:
        path: The file.
        metadata: Of the file.
        batch: Number of images per call.
        images: Number of images in all.
        difference: From PyTorch, largest of all images.
        failure: What is over its bound; '' if nothing is.
        timing: Whatever is known of its speed, in words.
    """

    path: Path
    metadata: Metadata
    batch: int
    images: int
    difference: check.Difference
    failure: str
    timing: str = ''

    def cells(self) -> list[str]:
        """Return the row as text; see `HEADER`."""
        known, found = self.metadata, self.difference
        nms = {'gaussian': 'soft'}.get(str(known.nms.get('method')), known.nms.get('method', ''))
        is_whole, is_raw = known.end == 'postprocess', known.end == 'raw'
        sides = known.image_size
        return [
            known.format,
            f'{nms or "soft"} NMS' if is_whole else known.end,
            known.precision,
            f'{sides[1]}x{sides[0]}' if sides else 'any',
            f'{megabytes(self.path):.1f}',
            str(self.batch),
            str(self.images),
            f'{found.matched:.2%} of {found.expected}' if is_whole else '',
            '' if is_raw else f'{found.box:.1e}',
            '' if is_raw else f'{found.score:.1e}',
            f'{found.raw:.1e}' if is_raw else '',
            self.timing,
            self.failure or 'yes',
        ]


HEADER = [
    'format', 'end', 'precision', 'input', 'MB', 'batch', 'images', 'found again',
    'boxes / side', 'scores', 'raw / largest', 'CPU ms', 'within bounds',
]  # fmt: skip


def megabytes(path: Path) -> float:
    """Return the size of a file with its companion, in MB."""
    files = [path, *(path.with_suffix(s) for f, s in COMPANIONS.items() if FORMATS[f] in path.name)]
    return sum(file.stat().st_size for file in files) / 1e6


def write_files(
    trained: TrainedModel,
    folder: Path,
    formats: Sequence[str],
    ends: Sequence[str],
    options: Options | None = None,
    tell: Tell = lambda _: None,
) -> list[Path]:
    """Write all combinations into a folder; ONNX and OpenVINO share each program.

    The files are not checked here: `examine` does it.

    Args:
        trained: On the CPU.
        folder: Of the files ``<end>.<suffix>``.
        formats: Of `FILES`.
        ends: Of `ENDS`.
        options: Thresholds and the like; format and end are replaced.
        tell: Gets a line for each file.

    Raises:
        ConfigError: An unknown format or end.
        InstallError: A package of a format is missing.
    """
    _check_known('formats', formats, FILES)
    _check_known('ends', ends, ENDS)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for end in ends:
        order = [form for form in FILES if form in formats]
        wanted: Any = replace(options or Options(), **ENDS[end])
        wanted.check()
        changed = with_nms(trained, wanted)
        metadata = metadata_of(changed, wanted)
        program = model = None
        for form in order:
            start = time.process_time()
            runner = import_module(f'effdet_plugin.export.{form}')
            known = replace(metadata, format=form)
            # Hard NMS is an operator of ONNX in their program, a loop in that of pt2.
            if program is None or form == 'pt2':
                program = program_of(changed, known)
            if form == 'openvino' and model is not None:
                built = runner.convert(model)
            else:
                built = runner.build(program)
            model = built if form == 'onnx' else model
            path = folder / f'{end}{FORMATS[form]}'
            runner.save(built, known, path)
            paths.append(path)
            tell(f'{path}: {megabytes(path):.1f} MB, {time.process_time() - start:.0f} s of CPU')
    return paths


def _check_known(name: str, given: Iterable[str], known: Iterable[str]) -> None:
    for one in given:
        if one not in known:
            raise ConfigError(f'--{name} {one}: choose of {", ".join(known)}')


def examine(
    paths: Sequence[Path],
    trained: TrainedModel,
    images: Sequence[Array],
    batches: Sequence[int] = (1, 4),
    threads: int | None = None,
    tell: Tell = lambda _: None,
) -> Iterator[Row]:
    """Compare files with eager PyTorch, not folded, whose post-processing is that of each file.

    Args:
        paths: Files with normalised float input.
        trained: The network that they were made from.
        images: RGB pixels ``(h, w, 3)`` uint8.
        batches: Numbers of images per call.
        threads: Of the runtimes.
        tell: Gets a line for each file.

    Yields:
        For each file and batch size how far it differs.

    Raises:
        CheckpointError: A file cannot be loaded, or is of another checkpoint.
        ConfigError: A file of uint8 input.
    """
    references: dict[str, tuple[Reference, Outputs]] = {}
    for path in paths:
        tell(f'compare {path.name}')
        runtime = load_runtime(path, threads=threads)
        known = runtime.metadata
        if known.input != 'float':
            raise ConfigError(f'{path}: takes images of uint8; give files of float input')
        if known.checkpoint_sha256 != (trained.checkpoint_hash or ''):
            raise CheckpointError(f'{path}: was made from another checkpoint; export it again')
        key = json.dumps([known.end, known.image_size, known.nms], sort_keys=True)
        if key not in references:
            reference = Reference(_with_nms_of(trained, known), known, list(images))
            references[key] = reference, _eager(reference)
        reference, expected = references[key]
        for batch in batches:
            total = check.Difference()
            for start in range(0, len(images), batch):
                found = runtime(reference.inputs[start : start + batch])
                one = {name: array[start : start + batch] for name, array in expected.items()}
                total = total.joined(check.compare(one, found, known, max(reference.size)))
            failure = check.failures(total, known)
            yield Row(path, known, batch, len(images), total, failure)


def _with_nms_of(trained: TrainedModel, known: Metadata) -> TrainedModel:
    """Return the network with the post-processing of a file."""
    method = {'hard': 'hard', 'gaussian': 'soft'}[str(known.nms.get('method', 'gaussian'))]
    thresholds: dict[str, Any] = {
        key: known.nms.get(key) for key in ('score_thr', 'iou_thr', 'max_per_img')
    }
    return with_nms(trained, Options(nms=method, **thresholds))


def _eager(reference: Reference) -> Outputs:
    """Return PyTorch's arrays of all images."""
    parts = []
    inputs = reference.inputs
    for start in range(0, len(inputs), _REFERENCE_BATCH):
        reference.inputs = inputs[start : start + _REFERENCE_BATCH]
        parts.append(reference.run(_REFERENCE_BATCH))
    reference.inputs = inputs
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
