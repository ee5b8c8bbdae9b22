"""Conversion from any known source to any known format."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import effdet_plugin
from effdet_plugin.convert import automl, effdet
from effdet_plugin.convert.architecture import Structure
from effdet_plugin.convert.coco_ids import ClassChoice, choose_classes, select_classes
from effdet_plugin.convert.detect import TWINS, describe, detect
from effdet_plugin.convert.download import cache_dir, fetch, fetch_release, release_name
from effdet_plugin.convert.opening import open_source
from effdet_plugin.convert.report import Report
from effdet_plugin.convert.rules import Account, apply, invert
from effdet_plugin.convert.saving import FORMATS, write
from effdet_plugin.convert.selection import Selection, select
from effdet_plugin.convert.sources import Source
from effdet_plugin.errors import CheckpointError

Classes = int | str | Path | Sequence[str]


@dataclass
class Converted:
    """Converted weights.

    Attributes:
        state_dict: tensors by the names of the format.
        meta: of the mmengine checkpoint: classes, source, anchors, version.
        report: what became of every tensor.
        format: ``'mmengine'``, ``'effdet'`` or ``'npz'``.
    """

    state_dict: dict[str, Tensor]
    meta: dict[str, Any]
    report: Report
    format: str = 'mmengine'

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        write(path, self.format, self.state_dict, self.meta)


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
        src: a TensorFlow checkpoint (folder, archive, prefix), ``.npz``, Keras ``.h5``, effdet's or
            our ``.pth``, an address, or the name of a release: ``d0`` ... ``d7x``, ``d3-640``,
            ``d1-advprop``, ``lite2``.
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
    else:
        path = _local(src, cache)
    with open_source(path, raw) as source:
        try:
            return _convert(source, model, classes, raw, to, release)
        except CheckpointError as error:
            message = str(error)
            prefixed = message if message.startswith(str(path)) else f'{path}: {message}'
            raise CheckpointError(prefixed) from error


def read_tensors(src: str | Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by their own names, nothing chosen, renamed or rearranged.

    Args:
        src: as in :func:`convert`, but a file.

    Raises:
        CheckpointError: It cannot be read.
    """
    with open_source(src) as source:
        return {name: source.read(name) for name in source.shapes}


def _local(src: str | Path, cache: str | Path | None) -> Path:
    if not str(src).startswith(('http://', 'https://')):
        return Path(src)
    return fetch(str(src), cache_dir(cache), str(src).rpartition('/')[2])


def _convert(
    source: Source, model: str | None, classes: Classes, raw: bool, to: str, release: str | None
) -> Converted:
    selection = select(source, raw)
    shapes = {name: source.shapes[own] for name, own in selection.names.items()}
    name, structure = detect(source.dialect, shapes, model)
    choice = choose_classes(classes, structure.num_classes, _known_classes(source.meta))
    state, account = apply(
        source.dialect, structure, shapes, lambda key: source.read(selection.names[key])
    )
    state = {key: value.to(_dtype(key)) for key, value in state.items()}
    report = _report(source, selection, account, name, structure, state)
    report.notes += _notes(report, source, selection, model, structure, choice, state)
    state = select_classes(state, choice.slots, structure.num_anchors)
    report.written_parameters = _count(state)[0]
    meta = _meta(report, source, selection, choice, release)
    structure = replace(structure, num_classes=len(choice.names))
    if to != 'mmengine':
        state = invert(automl.DIALECT if to == 'npz' else effdet.DIALECT, structure, state)
    return Converted(state, meta, report, to)


def _dtype(name: str) -> torch.dtype:
    return torch.int64 if name.endswith('num_batches_tracked') else torch.float32


def _known_classes(meta: Mapping[str, Any]) -> Sequence[str]:
    dataset_meta = meta.get('dataset_meta') or {}
    return dataset_meta.get('classes') or ()


def _report(
    source: Source,
    selection: Selection,
    account: Account,
    name: str,
    structure: Structure,
    state: Mapping[str, Tensor],
) -> Report:
    parameters, statistics = _count(state)
    return Report(
        source=source.path.name,
        format=source.format,
        sha256=source.sha256,
        model=name,
        network=f'{describe(structure.network)}, {structure.num_anchors} anchors, '
        f'{structure.num_classes} class outputs',
        mapped={
            target: tuple(selection.names[key] for key in keys)
            for target, keys in account.mapped.items()
        },
        filled=account.filled,
        left_out=selection.left_out,
        parameters=parameters,
        statistics=statistics,
    )


def _count(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Number of trainable values and of BN statistics."""
    statistics = sum(v.numel() for k, v in state.items() if k.endswith(('_mean', '_var')))
    counters = sum(v.numel() for k, v in state.items() if k.endswith('num_batches_tracked'))
    return sum(v.numel() for v in state.values()) - statistics - counters, statistics


def _notes(
    report: Report,
    source: Source,
    selection: Selection,
    model: str | None,
    structure: Structure,
    choice: ClassChoice,
    state: Mapping[str, Tensor],
) -> list[str]:
    name, usual = report.model, 'scalar' if structure.network.has_fusion else 'sum'
    broken = [key for key, value in state.items() if not _is_finite(value)]
    candidates = {
        'moving averages were taken; --raw takes the values as trained': selection.is_averaged,
        f'{selection.num_raw} tensors without a moving average were taken raw': selection.num_raw,
        f'd6 and d7 are the same network: taken as {name}; say --model d6 or d7': (
            name in TWINS and model is None
        ),
        f'fusion weights: {structure.fusion} (the usual {name} has {usual})': (
            structure.fusion != usual
        ),
        f'pyramid: {structure.topology}': structure.topology != 'bifpn',
        'anchors: trained with aspect pairs (1.4, 0.7), not the square root of 2': (
            _aspects(source) != 'sqrt2'
        ),
        "padding: a native effdet model pads symmetrically, TensorFlow's and ours does not": (
            _padding(source, report) != 'same'
        ),
        f'classes: {choice.note}': choice.note,
        f'{len(broken)} tensors hold infinite or undefined numbers, first {broken[:1]}': broken,
    }
    return [text for text, is_so in candidates.items() if is_so]


def _is_finite(value: Tensor) -> bool:
    return value.is_meta or math.isfinite(value.double().abs().sum().item())


def _aspects(source: Source) -> str:
    return str(source.meta.get('anchor_aspects', source.dialect.aspects))


def _padding(source: Source, report: Report) -> str:
    """How the network pads: native effdet models have no bias before BN, and symmetric padding."""
    is_native = effdet.NATIVE in report.filled.values()
    return str(source.meta.get('padding', 'symmetric' if is_native else 'same'))


def _meta(
    report: Report, source: Source, selection: Selection, choice: ClassChoice, release: str | None
) -> dict[str, Any]:
    return {
        'dataset_meta': {'classes': choice.names},
        'effdet_plugin_version': effdet_plugin.__version__,
        'model': report.model,
        'source': release or source.path.name,
        'source_format': source.format,
        'sha256': source.sha256,
        'is_averaged': selection.is_averaged,
        'anchor_aspects': _aspects(source),
        'padding': _padding(source, report),
    }
