"""Which split a file or folder name speaks of."""

import re
from collections.abc import Iterable

_WORDS = {
    'train': ('train', 'training', 'trn', 'trainset', 'trainval'),
    'val': ('val', 'valid', 'validation', 'validate', 'eval', 'valset', 'dev'),
    'test': ('test', 'testing', 'tst', 'testset'),
}
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
#: Letters only, a capital begins a word: ``instances_train2017``, ``TrainSet``.
_PARTS = re.compile(r'[A-Z]?[a-z]+|[A-Z]+')


def split_of_name(name: str) -> str | None:
    """``train``, ``val`` or ``test`` if exactly one of them is a word of the name.

    Args:
        name: A file's stem or a folder's name, such as ``instances_train2017``.
    """
    found = {_SPLIT_OF[word] for word in map(str.lower, _PARTS.findall(name)) if word in _SPLIT_OF}
    return found.pop() if len(found) == 1 else None


def split_of_parts(parts: Iterable[str]) -> str | None:
    """The split that the last telling part of a path speaks of, None if none does."""
    for part in reversed(list(parts)):
        split = split_of_name(part)
        if split:
            return split
    return None


def split_of_word(word: str) -> str | None:
    """The split of a single word as tables have it (``TRAINING``), None if it is none."""
    return _SPLIT_OF.get(word.strip().lower())
