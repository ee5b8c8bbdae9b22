"""Numbers as labelling tools write them: as text, as float, as nothing."""

import math
from collections.abc import Iterable

#: No picture has so many pixels on a side: a number beyond it is as good as infinite.
_BEYOND_ALL = 1e9


def number(value: object) -> float | None:
    """The number that a value stands for, None if it stands for none; may be NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
    except OverflowError:
        return math.inf


def is_finite(numbers: Iterable[float]) -> bool:
    """Whether all numbers are finite and small enough to be about a picture."""
    return all(abs(one) < _BEYOND_ALL for one in numbers)


def whole(value: object) -> int | None:
    """The whole number that a value stands for (7, 7.0, '007'), None if it stands for none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = number(value)
    return int(found) if found is not None and is_finite([found]) and found == int(found) else None


def flag(value: object) -> bool:
    """Whether a value says yes (1, 1.0, true, 'True'); words such as Unspecified say no."""
    if isinstance(value, str) and value.strip().lower() in ('true', 'yes'):
        return True
    return value is True or bool(whole(value))


def size(width: object, height: object) -> tuple[int, int] | None:
    """A size in pixels, None where it is absent or makes no sense (0, -1, text)."""
    sides = whole(width), whole(height)
    return (sides[0], sides[1]) if sides[0] and sides[1] and min(sides[0], sides[1]) > 0 else None
