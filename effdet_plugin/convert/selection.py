"""Which of a source's tensors are used, averages or raw values, and why the rest is not."""

import re
from dataclasses import dataclass, field

from effdet_plugin.convert.rules import Dialect
from effdet_plugin.convert.sources import Source
from effdet_plugin.errors import CheckpointError


@dataclass
class Selection:
    """The tensors to convert.

    Attributes:
        names: canonical name -> the source's own.
        left_out: own name -> reason.
        is_averaged: whether moving averages were taken.
        num_raw: how many tensors had no average while others had.
    """

    names: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    is_averaged: bool = False
    num_raw: int = 0


def select(source: Source, raw: bool = False) -> Selection:
    """Choose one value per variable.

    Args:
        source: the checkpoint.
        raw: the values as trained, even where there are moving averages.

    Raises:
        CheckpointError: Two tensors are the same variable.
    """
    selection = Selection(left_out=dict(source.left_out))
    values: dict[str, str] = {}
    averages: dict[str, str] = {}
    suffix = source.dialect.average
    for own in source.shapes:
        name = canonical(source.dialect, own)
        if reason := _reason(source.dialect, name):
            selection.left_out[own] = reason
        elif suffix and name.endswith(suffix):
            _add(averages, name.removesuffix(suffix), own)
        else:
            _add(values, name, own)
    if raw or not averages:
        selection.names = values
        reason = 'moving average; raw values were asked for'
        selection.left_out.update(dict.fromkeys(averages.values(), reason))
        return selection
    replaced = [own for name, own in values.items() if name in averages]
    selection.names = {**values, **averages}
    selection.left_out.update(dict.fromkeys(replaced, 'raw value; its moving average is used'))
    selection.is_averaged = True
    selection.num_raw = len(values) - len(replaced)
    return selection


def canonical(dialect: Dialect, name: str) -> str:
    """A name as the dialect's table has it."""
    for pattern, replacement in dialect.aliases:
        name = re.sub(pattern, replacement, name)
    return name


def _reason(dialect: Dialect, name: str) -> str:
    return next((why for pattern, why in dialect.left_out if re.search(pattern, name)), '')


def _add(names: dict[str, str], name: str, own: str) -> None:
    if name in names:
        raise CheckpointError(
            f'{names[name]} and {own} are both {name}: convert one of them at a time'
        )
    names[name] = own
