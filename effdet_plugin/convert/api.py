"""Conversion from any known source to any known format."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import effdet_plugin
from effdet_plugin.convert.coco_ids import choose_classes, select_classes
from effdet_plugin.convert.detect import detect
from effdet_plugin.convert.key_map import Applied, apply, invert
from effdet_plugin.convert.key_map_pytorch import EFFDET, NATIVE
from effdet_plugin.convert.key_map_tensorflow import VARIABLES
from effdet_plugin.convert.networks import Structure, equal_networks, state_shapes
from effdet_plugin.convert.open_source import open_source, with_path
from effdet_plugin.convert.sources import Selection, Source, select
from effdet_plugin.download import WEB, cache_dir, fetch
from effdet_plugin.errors import CheckpointError
from effdet_plugin.files import replacing
from effdet_plugin.weights_only import classes_of, first_not_finite

FORMATS = ('mmengine', 'effdet', 'npz')
# As google/automl's README, tf2/README and Det-AdvProp page give them.
BASE_URL = 'https://storage.googleapis.com/cloud-tpu-checkpoints/efficientdet/'
RELEASES = {
    **{f'd{x}': f'coco2/efficientdet-d{x}.tar.gz' for x in (*range(8), '7x')},
    **{f'd{x}-640': f'coco640/efficientdet-d{x}-640.tar.gz' for x in range(2, 7)},
    **{f'd{x}-advprop': f'advprop/efficientdet-d{x}.tar.gz' for x in range(6)},
    **{f'lite{x}': f'coco/efficientdet-lite{x}.tgz' for x in (0, 1, 2, 3, '3x', 4)},
}
Classes = int | str | Path | Sequence[str]


@dataclass
class Report:
    """The report of one conversion; a tensor that is in no list would have been an error.

    Attributes:
        source: file name.
        format: what it is, in words.
        sha256: of the file.
        model: the network, e.g. ``'d0'``.
        network: its numbers, in words.
        mapped: our name -> names in the source.
        filled: our name -> why it was filled with zeros.
        left_out: name in the source -> reason.
        parameters: number of trainable values of the source.
        statistics: number of BN statistics.
        written_parameters: number of trainable values of the result, after the choice of classes.
        notes: everything else that a person should know.
    """

    source: str
    format: str
    sha256: str
    model: str
    network: str
    mapped: dict[str, tuple[str, ...]] = field(default_factory=dict)
    filled: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    parameters: int = 0
    statistics: int = 0
    written_parameters: int = 0
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the report for a person, a line per topic."""
        num_sources = sum(len(sources) for sources in self.mapped.values())
        result = [
            f'source      {self.source} ({self.format}, sha256 {self.sha256[:16]}...)',
            f'model       {self.model}: {self.network}',
            f'mapped      {num_sources} tensors to {len(self.mapped)}',
            *(
                f'{title:<11} {count} ({reason})'
                for title, names in (('filled', self.filled), ('left out', self.left_out))
                for reason, count in Counter(names.values()).items()
            ),
            'missing     0',  # a conversion with a missing tensor is an error
            f'parameters  {self.parameters:,} trainable, {self.statistics:,} BN statistics',
        ]
        if self.written_parameters != self.parameters:
            result[-1] += f'; {self.written_parameters:,} trainable with the classes kept'
        return result + [f'note        {note}' for note in self.notes]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, for a JSON file."""
        return {**asdict(self), 'missing': []}


@dataclass
class Converted:
    """Converted weights.

    Attributes:
        state_dict: tensors by the names of the format.
        meta: of the mmengine checkpoint: classes, source, anchors, version.
        report: what became of every tensor.
        format: ``'mmengine'`` (saved with meta), ``'effdet'`` (a plain state dict) or ``'npz'``.
    """

    state_dict: dict[str, Tensor]
    meta: dict[str, Any]
    report: Report
    format: str = 'mmengine'

    def save(self, path: str | Path) -> None:
        """Write the file atomically; the same input gives the same bytes.

        Raises:
            CheckpointError: It cannot be written.
        """
        # A file, not a path: torch.save would write the temporary name into it.
        with _replacing(path) as part, part.open('wb') as file:
            if self.format == 'npz':
                arrays: dict[str, Any] = {n: v.numpy() for n, v in self.state_dict.items()}
                np.savez(file, **arrays)
            elif self.format == 'effdet':
                torch.save(dict(self.state_dict), file)
            else:
                torch.save({'meta': dict(self.meta), 'state_dict': dict(self.state_dict)}, file)

    def save_report(self, path: str | Path) -> None:
        """Write the report as JSON.

        Raises:
            CheckpointError: It cannot be written.
        """
        with _replacing(path) as part:
            part.write_text(json.dumps(self.report.to_dict(), indent=1), encoding='utf-8')


def convert(
    src: str | Path,
    model: str | None = None,
    classes: Classes = 80,
    *,
    raw: bool = False,
    to: str = 'mmengine',
    cache: str | Path | None = None,
) -> Converted:
    """Convert a checkpoint.

    Args:
        src: a TensorFlow checkpoint (folder, archive, prefix), ``.npz``, Keras ``.h5``, a ``.pth``
            of effdet, zylo117, mmdetection's ``projects/EfficientDet`` or ours, an address, or the
            name of a release: ``d0`` ... ``d7x``, ``d3-640``, ``d1-advprop``, ``lite2``.
        model: the expected network, checked; None takes what the tensors say.
        classes: 80 (COCO's classes), 90 (the reference's slots), a file with a name per line, or
            names.
        raw: the values as trained instead of their moving averages.
        to: ``'mmengine'`` (our checkpoint), ``'effdet'`` (state dict of ``tf_efficientdet_*``) or
            ``'npz'`` (TensorFlow's variable names).
        cache: folder for downloads; None for one in torch.hub's.

    Raises:
        CheckpointError: The source cannot be had or read, is not of ``model``, or a tensor of it is
            missing or unknown.
    """
    if to not in FORMATS:
        raise CheckpointError(f'--to {to}: choose one of {", ".join(FORMATS)}')
    release = release_name(src)
    if release is not None:
        path = fetch_release(release, cache)
        model = model or release
    elif str(src).startswith(WEB):
        path = fetch(str(src), cache_dir(cache), str(src).rpartition('/')[2])
    else:
        path = Path(src)
    with open_source(path, raw) as source:
        try:
            return _convert(source, model, classes, raw, to, release)
        except CheckpointError as error:
            raise CheckpointError(with_path(path, str(error))) from error


def read_tensors(src: str | Path) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint by their own names, nothing chosen or rearranged.

    Args:
        src: as in :func:`convert`, but a file.

    Raises:
        CheckpointError: It cannot be read.
    """
    with open_source(src) as source:
        return {name: source.read(name) for name in source.shapes}


@contextmanager
def _replacing(path: str | Path) -> Iterator[Path]:
    try:
        with replacing(path) as part:
            yield part
    except OSError as error:
        raise CheckpointError(f'{path}: cannot be written: {error.strerror or error}') from error


def _convert(
    source: Source, model: str | None, classes: Classes, raw: bool, to: str, release: str | None
) -> Converted:
    selection = select(source, raw)
    shapes = {name: source.shapes[own] for name, own in selection.names.items()}
    structure = detect(source.key_map, shapes, model)
    if source.key_map.idle_fusion and structure.fusion == 'sum':
        reason = f'fusion weights that the sums of {structure.model} do without'
        selection.leave_out(source.key_map.idle_fusion, reason)
        shapes = {name: source.shapes[own] for name, own in selection.names.items()}
    known_classes = classes_of({'meta': source.meta}) or ()
    choice = choose_classes(classes, structure.num_classes, known_classes)

    def read(key: str) -> Tensor:
        tensor = source.read(selection.names[key])
        if first_not_finite({key: tensor}):
            raise CheckpointError(
                f'the weights are not finite: {selection.names[key]} holds NaN or infinity'
            )
        return tensor

    applied = apply(source.key_map, structure, state_shapes(structure), shapes, read)
    state = select_classes(applied.state, choice.slots, structure.num_anchors)
    # Native effdet models have no bias before BN, and pad symmetrically.
    padding = 'symmetric' if NATIVE in applied.filled.values() else 'same'
    meta = {
        'dataset_meta': {'classes': choice.names},
        'effdet_plugin_version': effdet_plugin.__version__,
        'model': structure.model,
        'source': release or source.path.name,
        'source_format': source.format,
        'sha256': source.sha256,
        'is_averaged': selection.is_averaged,
        'anchor_aspects': str(source.meta.get('anchor_aspects', source.key_map.aspect_ratios)),
        'padding': str(source.meta.get('padding', padding)),
        'pool_type': str(source.meta.get('pool_type', source.key_map.pool_type)),
    }
    report = _report(source, selection, structure, applied)
    report.written_parameters = _count(state)[0]
    report.notes = _notes(source, selection, structure, meta)
    if model is None and len(equal := equal_networks(structure.model)) > 1:
        report.notes.append(
            f'{" and ".join(equal)} are the same network: taken as {structure.model}; '
            f'say --model {" or ".join(equal)}'
        )
    if choice.note:
        report.notes.append(f'classes: {choice.note}')
    if to != 'mmengine':
        structure = replace(structure, num_classes=len(choice.names))
        state = invert(VARIABLES if to == 'npz' else EFFDET, structure, state)
    return Converted(state, meta, report, to)


def _report(source: Source, selection: Selection, structure: Structure, applied: Applied) -> Report:
    parameters, statistics = _count(applied.state)
    return Report(
        source=source.path.name,
        format=source.format,
        sha256=source.sha256,
        model=structure.model,
        network=f'{structure.network}, {structure.num_anchors} anchors, '
        f'{structure.num_classes} class outputs',
        mapped={
            ours: tuple(selection.names[key] for key in keys)
            for ours, keys in applied.mapped.items()
        },
        filled=applied.filled,
        left_out=selection.left_out,
        parameters=parameters,
        statistics=statistics,
    )


def _count(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return the number of trainable values and of BN statistics."""
    statistics = sum(v.numel() for k, v in state.items() if k.endswith(('_mean', '_var')))
    counters = sum(v.numel() for k, v in state.items() if k.endswith('num_batches_tracked'))
    return sum(v.numel() for v in state.values()) - statistics - counters, statistics


def _notes(
    source: Source, selection: Selection, structure: Structure, meta: Mapping[str, Any]
) -> list[str]:
    name, usual, num_raw = structure.model, structure.network.fusion, selection.num_raw
    candidates = {
        source.note: source.note,
        'moving averages were taken; --raw takes the values as trained': selection.is_averaged,
        f'{num_raw} tensors without a moving average were taken raw': num_raw,
        f'fusion weights: {structure.fusion} (the usual {name} has {usual})': (
            structure.fusion != usual
        ),
        f'pyramid: {structure.topology}': structure.topology != 'bifpn',
        'anchors: trained with aspect pairs (1.4, 0.7), not the square root of 2': (
            meta['anchor_aspects'] != 'sqrt2'
        ),
        "padding: a native effdet model pads symmetrically, TensorFlow's and ours does not": (
            meta['padding'] != 'same'
        ),
        "pooling: pads with zeros, as in training; TensorFlow's and ours with minus infinity": (
            meta['pool_type'] != 'max'
        ),
    }
    return [text for text, is_so in candidates.items() if is_so]


def release_name(src: str | Path) -> str | None:
    """Return the release that ``src`` names: ``d0``, ``efficientdet-d3-640``; None for a path."""
    name = str(src).lower().removeprefix('efficientdet-')
    return name if name in RELEASES and not Path(src).exists() else None


def fetch_release(
    name: str, cache: str | Path | None = None, patience: float | None = None
) -> Path:
    """Return the path of a release's archive, downloaded unless it is there.

    Args:
        name: a key of :data:`RELEASES`.
        cache: folder for downloads.
        patience: see :func:`~effdet_plugin.download.fetch`.

    Raises:
        CheckpointError: It cannot be downloaded; the line says what to do.
    """
    return fetch(BASE_URL + RELEASES[name], cache_dir(cache), name, patience=patience)
