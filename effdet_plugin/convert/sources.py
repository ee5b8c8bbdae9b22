"""What every reader yields, and which of its tensors are converted."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from effdet_plugin.convert.key_map import KeyMap
from effdet_plugin.convert.networks import Shapes
from effdet_plugin.errors import CheckpointError


@dataclass(frozen=True)
class Source:
    """Tensors of one checkpoint: names and shapes at once, values when asked for.

    Attributes:
        path: where they were found.
        format: in words.
        key_map: how they are named.
        shapes: shapes by the source's own names.
        read: gives a tensor by its own name, in its own type.
        sha256: of the file, or of all files of a checkpoint together.
        left_out: own name -> reason, for what the reader itself set aside.
        meta: what the checkpoint says about itself (classes, anchors), for our own.
        note: what a person should know about the reading.
    """

    path: Path
    format: str
    key_map: KeyMap
    shapes: Shapes
    read: Callable[[str], Tensor]
    sha256: str
    left_out: dict[str, str] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    note: str = ''


@dataclass
class Selection:
    """The tensors to convert.

    Attributes:
        names: canonical name -> the source's own.
        left_out: own name -> reason.
        is_averaged: whether moving averages were taken.
        num_raw: how many tensors had no average while others had.
    """

    names: dict[str, str]
    left_out: dict[str, str]
    is_averaged: bool = False
    num_raw: int = 0

    def leave_out(self, pattern: str, reason: str) -> None:
        """Take the names that match a pattern out of those to convert."""
        for name in [name for name in self.names if re.search(pattern, name)]:
            self.left_out[self.names.pop(name)] = reason


def select(source: Source, raw: bool = False) -> Selection:
    """Choose one value per variable, and say why the rest is left out.

    Args:
        source: the checkpoint.
        raw: the values as trained, even where there are moving averages.

    Raises:
        CheckpointError: Two tensors are the same variable.
    """
    left_out = dict(source.left_out)
    values: dict[str, str] = {}
    averages: dict[str, str] = {}
    suffix = source.key_map.average
    for own in source.shapes:
        name = source.key_map.canonical(own)
        reasons = (why for pattern, why in source.key_map.left_out if re.search(pattern, name))
        if reason := next(reasons, ''):
            left_out[own] = reason
            continue
        is_average = bool(suffix) and name.endswith(suffix)
        group, name = (averages, name.removesuffix(suffix)) if is_average else (values, name)
        if name in group:
            raise CheckpointError(
                f'{group[name]} and {own} are both {name}: convert one of them at a time'
            )
        group[name] = own
    if raw or not averages:
        reason = 'moving average; raw values were asked for'
        return Selection(values, {**left_out, **dict.fromkeys(averages.values(), reason)})
    replaced = [own for name, own in values.items() if name in averages]
    left_out.update(dict.fromkeys(replaced, 'raw value; its moving average is used'))
    return Selection(
        {**values, **averages}, left_out, is_averaged=True, num_raw=len(values) - len(replaced)
    )
