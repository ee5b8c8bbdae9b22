"""Splits: which one a path means, and a validation split where the data has none."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from effdet_plugin.own_data.dataset import DatasetDescription, Image, Split

Images = TypeVar('Images')
VAL_FRACTION = 0.2
_WORDS = {
    'train': ('train', 'training', 'trn', 'trainset', 'trainval'),
    'val': ('val', 'valid', 'validation', 'validate', 'eval', 'valset', 'dev'),
    'test': ('test', 'testing', 'tst', 'testset'),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
# Letters only, a capital begins a word: ``instances_train2017``, ``TrainSet``.
_PARTS = re.compile(r'[A-Z]?[a-z]+|[A-Z]+')
# Roboflow appends this to each augmented copy; copies of one image must stay together.
_COPY = re.compile(r'\.rf\.[0-9A-Za-z]+$')


def split_of_parts(parts: Iterable[str]) -> str | None:
    """Guess the split from a path: of the last part that names exactly one; None if none does.

    Args:
        parts: Folder names and a file's stem, such as ``instances_train2017``.
    """
    for part in reversed(list(parts)):
        found = {split_of_word(word) for word in _PARTS.findall(part)} - {None}
        if len(found) == 1:
            return found.pop()
    return None


def split_of_word(word: str) -> str | None:
    """Return the split of a single word as tables have it (``TRAINING``), None if none."""
    return _SPLIT_OF.get(word.strip().lower())


def with_train(splits: dict[str, Images]) -> dict[str, Images]:
    """Return the splits; a single one that happens to be called val or test is for training."""
    if not splits.get('train') and len({'train', *splits}) == 2:
        return {'train': next(images for name, images in splits.items() if name != 'train')}
    return splits


def with_validation(
    description: DatasetDescription, fraction: float = VAL_FRACTION, seed: int = 0
) -> DatasetDescription:
    """Return the description with a validation split, taken from the training images if need be.

    The choice depends on the names of the images and the seed alone: it is the same on every
    machine. Every class keeps a box in training if possible.

    Args:
        description: Without or with a validation split; with one it is returned unchanged.
        fraction: Part of the training images that goes to validation, at least one image.
        seed: Another number, another choice.
    """
    val, train = description.splits.get('val'), description.train
    if not train.images or (val is not None and val.images):
        return description
    groups = _groups(description.root, train, seed)
    chosen = _choose(groups, round(fraction * len(train)), train, len(description.classes))
    kept = [image for image in train if image not in chosen]
    if chosen:
        how = f'{len(chosen)} of {len(train)} images, by a hash of their names'
        remark = f'no validation split is given: one is made of {how}'
    else:
        chosen = set(train)
        remark = 'no validation split is given and one image cannot be split: it is used twice'
    validation = Split([image for image in train if image in chosen])
    splits = description.splits | {'train': Split(kept), 'val': validation}
    return replace(description, splits=splits).with_remark('split_made', remark)


def _groups(root: Path, train: Split, seed: int) -> list[list[Image]]:
    """Return images that must stay together, in the order of their hashes."""
    groups: dict[str, list[Image]] = {}
    for image in train:
        path = image.path.relative_to(root) if root in image.path.parents else image.path
        name = f'{path.parent.as_posix()}/{_COPY.sub("", path.stem)}'
        groups.setdefault(name, []).append(image)
    ordered = sorted(groups, key=lambda name: hashlib.sha1(f'{seed}:{name}'.encode()).digest())
    return [groups[name] for name in ordered]


def _choose(groups: list[list[Image]], wanted: int, train: Split, num_classes: int) -> set[Image]:
    """Return images for validation: the first by hash, one of them with a box if possible."""
    left = train.class_counts(num_classes)
    chosen: set[Image] = set()
    for group in _with_boxes_first(groups, left):
        counts = Split(group).class_counts(num_classes)
        if not _num_emptied(counts, left) and len(chosen) + len(group) < len(train):
            chosen.update(group)
            left = left - counts
        if len(chosen) >= max(1, wanted):
            break
    if chosen or len(groups) < 2:
        return chosen
    # No group can be spared: the one that takes the last boxes of the fewest classes.
    harms = [_num_emptied(Split(group).class_counts(num_classes), left) for group in groups]
    return set(groups[harms.index(min(harms))])


def _with_boxes_first(groups: list[list[Image]], left: NDArray[np.int64]) -> list[list[Image]]:
    """Return the groups, the first that has boxes to spare moved to the front."""
    for group in groups:
        counts = Split(group).class_counts(len(left))
        if counts.any() and not _num_emptied(counts, left):
            return [group, *(other for other in groups if other is not group)]
    return groups


def _num_emptied(counts: NDArray[np.int64], left: NDArray[np.int64]) -> int:
    """Return how many classes have no box left when these boxes are taken away."""
    return int(((counts > 0) & (counts == left)).sum())
