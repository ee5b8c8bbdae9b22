"""Inference of many files in several processes: shards by file, restarted where it ended, merged.

The files are divided into shards. Each process takes the next shard that nobody has, and writes its
rows to ``OUT/shards``; a shard counts when its counts are written. A call that is killed and
started again does the missing ones only. In the end the first process merges all: rows, names of
drawings and image ids are those of one process.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from effdet_plugin.engine.one_run import only_run
from effdet_plugin.errors import ConfigError, DatasetError
from effdet_plugin.files import (
    is_regular,
    read_json,
    remove_parts,
    sha256,
    write_atomically,
    write_errors,
)
from effdet_plugin.inference.detector import Detector
from effdet_plugin.inference.drawings import Drawings, Names
from effdet_plugin.inference.results import InferenceResult, read_rows, writing_predictions
from effdet_plugin.inference.run import InferOptions, infer_into
from effdet_plugin.inference.sources import Kind, Source, find_sources
from effdet_plugin.inference.workers import Workers, torchrun_workers

MAX_IMAGES = 256  # in a shard: what a killed process loses
SHARDS_PER_PROCESS = 8  # at least, where there are so many files, so that all end at once
# Arguments that change no detection, and those that the hash of the files stands for.
_OF_THE_CALL = ('input', 'out', 'device', 'batch_size', 'show', 'strict', 'launcher')


@dataclass(frozen=True)
class _Plan:
    """What is to be done.

    Attributes:
        sources: All of them, in order.
        names: Of their drawings.
        shards: (first, last + 1) of the sources of each shard.
        missing: Numbers of the shards that are still to be done.
    """

    sources: Sequence[Source]
    names: Sequence[str]
    shards: Sequence[tuple[int, int]]
    missing: Sequence[int]


def infer_in_shards(
    detector: Detector,
    inputs: Sequence[str],
    out_dir: Path | str,
    options: InferOptions,
    settings: Mapping[str, Any],
    workers: Workers | None = None,
) -> InferenceResult | None:
    """Do what `effdet_plugin.inference.infer` does, together with other processes.

    Args:
        detector: Of this process, on its device.
        inputs: What `find_sources` takes; files only. The first process's count.
        out_dir: Of all processes: on several machines, a folder that they share.
        options: See `infer`; nothing can be shown.
        settings: See `settings_of`.
        workers: The processes; None: those that torchrun has started.

    Returns:
        In the first process the result of all, in others None; after Ctrl-C what this one has done.

    Raises:
        ConfigError: An input is no file, or ``out_dir`` has the shards of a call with other files
            or settings.
        DatasetError: Nothing is found.
        UserError: Another call writes to ``out_dir`` at this moment.
        WriteError: The disk is full, or the folder cannot be written.
    """
    if options.show:
        raise ConfigError('--show: several processes cannot show what they draw; leave it out')
    folder = Path(out_dir) / 'shards'
    with torchrun_workers() if workers is None else nullcontext(workers) as all_of_us:
        is_first = all_of_us.rank == 0
        with only_run(folder) if is_first else nullcontext():
            first = (
                _planned(inputs, folder, settings, all_of_us.count, detector.batch_size)
                if is_first
                else None
            )
            plan: _Plan = all_of_us.from_first(first)
            own = _do_shards(detector, plan, folder, options, is_first)
            if own.is_interrupted:
                return own
            all_of_us.wait()
            return _merged(folder, len(plan.shards)) if is_first else None


def settings_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``tools/infer.py`` that detections depend on, and the model's hash.

    Shards of a call with other settings are not used.
    """
    kept = {key: value for key, value in arguments.items() if key not in _OF_THE_CALL}
    path = Path(arguments['model']).expanduser()
    return {**kept, 'model': sha256(path) if path.is_file() else str(path)}


def _do_shards(
    detector: Detector, plan: _Plan, folder: Path, options: InferOptions, is_shown: bool
) -> InferenceResult:
    """Do shards until no process has one left; return what this process has found."""
    own = InferenceResult(folder.parent / 'predictions.json')
    count = len(plan.missing)
    with tqdm(total=count, desc='shards', unit='shard', disable=not is_shown) as bar:
        for done, number in enumerate(plan.missing):
            bar.update(done - bar.n)
            if not _claimed(folder, number):
                continue
            first, end = plan.shards[number]
            drawings = Drawings(folder.parent / 'vis', plan.names[first:end])
            sources = plan.sources[first:end]
            file = _rows_of(folder, number)
            found = infer_into(detector, sources, file, drawings, options, is_part=True)
            _add(own, found)
            if found.is_interrupted:
                break
            counts = {key: value for key, value in asdict(found).items() if key != 'file'}
            write_atomically(_counts_of(folder, number), json.dumps(counts))
        else:
            bar.update(count - bar.n)
    return own


def _planned(
    inputs: Sequence[str], folder: Path, settings: Mapping[str, Any], processes: int, batch: int
) -> _Plan:
    """Return the plan of a new call, or of the one that is continued."""
    sources = [source for text in inputs for source in find_sources(text)]
    for source in sources:
        if source.kind not in (Kind.IMAGE, Kind.VIDEO):
            raise ConfigError(f'{source.name}: several processes read files only, no addresses')
    names = Names()
    key = _key_of(sources, settings)
    shards = _known_shards(folder, key)
    if shards is None:
        shards = divided(sources, processes, batch)
        write_atomically(folder / 'plan.json', json.dumps({'key': key, 'shards': shards}))
    for claim in folder.glob('*.taken'):
        claim.unlink(missing_ok=True)
    remove_parts(folder)
    missing = [n for n in range(len(shards)) if not is_regular(_counts_of(folder, n))]
    return _Plan(sources, [names.take_for(source) for source in sources], shards, missing)


def divided(
    sources: Sequence[Source], processes: int = 1, batch_size: int = 1
) -> list[tuple[int, int]]:
    """Divide sources into shards (first, last + 1): of one video, or of several images.

    Args:
        sources: In order.
        processes: Each has some shards to do, so that they end at about the same time.
        batch_size: Shards of images are whole batches.
    """
    number = sum(source.kind is Kind.IMAGE for source in sources)
    size = min(MAX_IMAGES, -(-number // (SHARDS_PER_PROCESS * processes)))
    size = max(1, -(-size // batch_size)) * batch_size
    shards: list[tuple[int, int]] = []
    for index, source in enumerate(sources):
        is_image = source.kind is Kind.IMAGE
        first, end = shards[-1] if shards else (0, 0)
        goes_on = is_image and shards and sources[first].kind is Kind.IMAGE and end - first < size
        if goes_on:
            shards[-1] = (first, index + 1)
        else:
            shards.append((index, index + 1))
    return shards


def _key_of(sources: Sequence[Source], settings: Mapping[str, Any]) -> str:
    """Return a hash of all that the rows depend on."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for source in sources:
        path = Path(source.place)
        stat = path.stat() if path.exists() else None
        known = (source.place, stat and stat.st_size, stat and stat.st_mtime_ns)
        digest.update(json.dumps(known).encode())
    return digest.hexdigest()


def _known_shards(folder: Path, key: str) -> list[tuple[int, int]] | None:
    """Return the shards of a call that has not ended; None if there is none.

    Raises:
        ConfigError: It was a call with other files or settings.
    """
    if not (folder / 'plan.json').exists():
        return None
    try:
        found = read_json(folder / 'plan.json')
        known = [(int(first), int(end)) for first, end in found['shards']]
        is_same = found['key'] == key
    except (DatasetError, KeyError, TypeError, ValueError):
        is_same, known = False, []
    if not is_same:
        raise ConfigError(
            f'{folder}: has what another call began, with other files, model or options: repeat '
            'that call, choose another --out, or remove this folder'
        )
    return known


def _claimed(folder: Path, number: int) -> bool:
    """Take a shard; return whether no other process has it."""
    path = folder / f'{number:06d}.taken'
    with write_errors(path):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
    return True


def _rows_of(folder: Path, number: int) -> Path:
    return folder / f'{number:06d}.json'


def _counts_of(folder: Path, number: int) -> Path:
    return folder / f'{number:06d}.counts.json'


def _merged(folder: Path, number: int) -> InferenceResult:
    """Write the rows of all shards into one file, and remove the shards."""
    result = InferenceResult(folder.parent / 'predictions.json')
    with writing_predictions(result.file) as file:
        for shard in range(number):
            before = result.num_read + result.num_skipped
            _add(result, _read_counts(folder, shard))
            for row in read_rows(_rows_of(folder, shard)):
                file.write([{**row, 'image_id': row['image_id'] + before}])
        if file.num_rows != result.num_objects:
            raise DatasetError(
                f'{folder}: has {file.num_rows} rows for {result.num_objects} objects: a file in '
                'it was changed; remove the folder and start again'
            )
    shutil.rmtree(folder)
    return result


def _read_counts(folder: Path, number: int) -> InferenceResult:
    path = _counts_of(folder, number)
    try:
        counts = read_json(path)
        score, name = counts.pop('highest')
        return InferenceResult(_rows_of(folder, number), highest=(float(score), name), **counts)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f'{path}: damaged: remove it and start again') from error


def _add(total: InferenceResult, part: InferenceResult) -> None:
    """Add the counts and lines of a shard to those of the shards before it."""
    total.num_objects += part.num_objects
    total.num_read += part.num_read
    total.num_frames += part.num_frames
    total.num_skipped += part.num_skipped
    total.unreadable += part.unreadable
    total.remarks += part.remarks
    if part.highest[0] > total.highest[0]:
        total.highest = part.highest
    total.is_interrupted |= part.is_interrupted
