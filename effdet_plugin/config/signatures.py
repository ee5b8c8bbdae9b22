"""Which keys a node's constructor takes, over its whole class hierarchy."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from torch import nn

# Where a walk up the hierarchy ends: neither takes a keyword of ours.
_ROOTS = (object, nn.Module)


@dataclass(frozen=True)
class Signature:
    """The keys that a constructor takes.

    Attributes:
        names: Keyword arguments by name.
        is_open: The topmost constructor keeps its ``**kwargs`` to itself, so that any key may
            be right.
    """

    names: frozenset[str] = frozenset()
    is_open: bool = False


def signature_of(target: Callable[..., Any]) -> Signature:
    """Collect the keyword arguments of a class or function.

    A constructor with ``**kwargs`` hands them on, so the names of its bases' are taken too: of
    all its bases, since with several of them some call past the first (mmdet's VFNetHead).

    Args:
        target: What a registry holds: a class or a function.
    """
    if inspect.isclass(target):
        return _of_class(target) or Signature()
    names, hides_more = _keywords(target)
    return Signature(frozenset(names), hides_more)


def _of_class(cls: type) -> Signature | None:
    """Return the keys that a class takes; None if there is no constructor below the roots."""
    if cls in _ROOTS:
        return None
    has_own = '__init__' in vars(cls)
    names, hides_more = _keywords(vars(cls)['__init__']) if has_own else (set(), True)
    if not hides_more:
        return Signature(frozenset(names))
    bases = [base for base in map(_of_class, cls.__bases__) if base is not None]
    if not has_own and any(not base.is_open for base in bases):
        # Python takes the first one, and goes on only where that one hands its keywords on.
        bases = bases[: [base.is_open for base in bases].index(False) + 1]
    if not has_own and not bases:
        return None
    is_open = all(base.is_open for base in bases)
    return Signature(frozenset(names).union(*(base.names for base in bases)), is_open)


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Say which of the allowed names was probably meant.

    Returns:
        ``; did you mean 'x'?``, or the allowed names where none is near, or nothing.
    """
    allowed = sorted(allowed)
    matches = get_close_matches(name, allowed, n=1, cutoff=0.4)
    if matches:
        return f'; did you mean {matches[0]!r}?'
    return f'; choose one of {", ".join(allowed)}' if 0 < len(allowed) <= 20 else ''


def _keywords(function: Callable[..., Any]) -> tuple[set[str], bool]:
    """Return the keyword names of a function, and whether it has ``**kwargs``."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built in, says nothing: any key may be right
        return set(), True
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = {p.name for p in parameters if p.kind in kinds} - {'self'}
    return names, any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
