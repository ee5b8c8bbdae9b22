"""Makes a validation split where the data has none."""

import hashlib
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from effdet_plugin.datasets.readers.description import DatasetDescription, Image, Split
from effdet_plugin.datasets.readers.findings import Findings

VAL_FRACTION = 0.2
#: Roboflow appends this to each augmented copy; copies of one picture must stay together.
_COPY = re.compile(r'\.rf\.[0-9A-Za-z]+$')


def with_validation(
    description: DatasetDescription, fraction: float = VAL_FRACTION, seed: int = 0
) -> DatasetDescription:
    """The description with a validation split, made from the training pictures if need be.

    The choice depends on the names of the pictures and the seed alone: it is the same on every
    machine. Every class keeps a box in training if that can be.

    Args:
        description: Without or with a validation split; with one it is returned as it is.
        fraction: Part of the training pictures that goes to validation, at least one picture.
        seed: Another number, another choice.
    """
    val, train = description.splits.get('val'), description.train
    if not train.images or (val is not None and val.images):
        return description
    groups = _groups(description.root, train, seed)
    chosen = _choose(groups, round(fraction * len(train)), train, len(description.classes))
    kept = [image for image in train if image not in chosen]
    if not chosen:
        chosen, said = (
            set(train),
            'no validation split is given and one picture cannot be split: it is used twice',
        )
    else:
        kept_said = f'{len(chosen)} of {len(train)} pictures, by a hash of their names'
        said = f'no validation split is given: one is made of {kept_said}'
    findings = Findings()
    findings.add('split_made', description.root.name, '', said)
    splits = description.splits | {
        'train': Split(kept),
        'val': Split([image for image in train if image in chosen]),
    }
    return description.changed(splits=splits, findings=description.findings + findings.all())


def _groups(root: Path, train: Split, seed: int) -> list[list[Image]]:
    """Pictures that must stay together, in the order of their hashes."""
    groups: dict[str, list[Image]] = {}
    for image in train:
        path = image.path.relative_to(root) if root in image.path.parents else image.path
        name = f'{path.parent.as_posix()}/{_COPY.sub("", path.stem)}'
        groups.setdefault(name, []).append(image)
    ordered = sorted(groups, key=lambda name: hashlib.sha1(f'{seed}:{name}'.encode()).digest())
    return [groups[name] for name in ordered]


def _choose(groups: list[list[Image]], wanted: int, train: Split, num_classes: int) -> set[Image]:
    """Pictures for validation: the first by hash, of which at least one has a box if it can."""
    left = train.class_counts(num_classes)
    chosen: set[Image] = set()
    for group in _with_boxes_first(groups, left):
        counts = Split(group).class_counts(num_classes)
        if not _empties(counts, left) and len(chosen) + len(group) < len(train):
            chosen.update(group)
            left = left - counts
        if len(chosen) >= max(1, wanted):
            break
    return chosen or _least_harm(groups, left)


def _least_harm(groups: list[list[Image]], left: NDArray[np.int64]) -> set[Image]:
    """The group that takes the last boxes of the fewest classes; none if there is only one."""
    if len(groups) < 2:
        return set()

    counts = [Split(group).class_counts(len(left)) for group in groups]
    harms = [int(((count > 0) & (count == left)).sum()) for count in counts]
    return set(groups[harms.index(min(harms))])


def _with_boxes_first(groups: list[list[Image]], left: NDArray[np.int64]) -> list[list[Image]]:
    """The groups with the first that has boxes to spare moved to the front."""
    for group in groups:
        counts = Split(group).class_counts(len(left))
        if counts.any() and not _empties(counts, left):
            return [group, *(other for other in groups if other is not group)]
    return groups


def _empties(counts: NDArray[np.int64], left: NDArray[np.int64]) -> bool:
    """Whether taking these boxes away leaves a class without any."""
    return bool(((counts > 0) & (counts == left)).any())
