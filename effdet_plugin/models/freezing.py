"""Freeze the parameters whose names match a regular expression, and their BN statistics."""

import re
from collections.abc import Iterator
from difflib import get_close_matches

from mmengine.logging import print_log
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from effdet_plugin.errors import ConfigError

_WORD = re.compile(r'[A-Za-z]\w*')


def freeze_parameters(model: nn.Module, pattern: str) -> None:
    """Turn off the gradients of every parameter whose name matches.

    Args:
        model: A built model.
        pattern: A regular expression that is searched for in names such as
            ``backbone.model.blocks.0.0.conv_dw.weight``.

    Raises:
        ConfigError: The pattern is not a regular expression, or matches nothing or everything.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f'freeze={pattern!r} is no regular expression: {error}') from error
    parameters = dict(model.named_parameters())
    frozen = [name for name in parameters if expression.search(name)]
    if not frozen:
        raise ConfigError(f'freeze={pattern!r} matches no parameter; {_near(pattern, parameters)}')
    if len(frozen) == len(parameters):
        raise ConfigError(f'freeze={pattern!r} matches all parameters: nothing is left to train')
    for name in frozen:
        parameters[name].requires_grad = False
    count = sum(parameters[name].numel() for name in frozen)
    print_log(
        f'Frozen by {pattern!r}: {len(frozen)} of {len(parameters)} tensors ({count:,} numbers)',
        logger='current',
    )


def frozen_norms(model: nn.Module, pattern: str) -> Iterator[nn.Module]:
    """Yield the batch norms whose parameters all match.

    They are looked up on each call, since a conversion to synchronised BN replaces them.

    Args:
        model: A built model.
        pattern: See `freeze_parameters`.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            own = [f'{name}.{key}' for key, _ in module.named_parameters(recurse=False)]
            if own and all(re.search(pattern, parameter) for parameter in own):
                yield module


def _near(pattern: str, names: dict[str, nn.Parameter]) -> str:
    """Suggest names of modules that are similar to a word of the pattern."""
    # Deeper names are layers inside blocks: hundreds of similar ones.
    modules = {'.'.join(name.split('.')[:depth]) for name in names for depth in range(1, 5)}
    by_word = {name.rpartition('.')[2]: name for name in sorted(modules, reverse=True)}
    near = [
        by_word[match]
        for word in _WORD.findall(pattern)
        for match in get_close_matches(word, by_word, n=2, cutoff=0.6)
    ]
    found = dict.fromkeys(near) or sorted({name.partition('.')[0] for name in names})
    return f'similar names: {", ".join(found)}'
