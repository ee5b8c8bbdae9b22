"""Generators in threads: order, errors, end, and what is dropped."""

import time
from collections.abc import Generator
from threading import Event

import pytest

from effdet_plugin.inference.background import in_background


def test_in_background__all_items_in_order() -> None:
    assert list(in_background((number for number in range(50)), 2)) == list(range(50))


def test_in_background__an_error_comes_after_the_items_before_it() -> None:
    def two_then_error() -> Generator[int, None, None]:
        yield from (1, 2)
        raise ValueError('third')

    items = in_background(two_then_error(), 5)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match='third'):
        next(items)


def test_in_background__closing_ends_the_thread_and_the_generator() -> None:
    closed = Event()

    def endless() -> Generator[int, None, None]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    items = in_background(endless(), 2)
    next(items)
    items.close()
    assert closed.is_set()


def test_in_background__newest_only_drops_the_oldest() -> None:
    finished = Event()

    def camera() -> Generator[int, None, None]:
        yield from range(10)
        finished.set()

    items = in_background(camera(), 2, newest_only=True)
    first = next(items)
    finished.wait(5)
    time.sleep(0.02)
    rest = list(items)
    assert first <= 9
    assert rest[-1:] == [9]
    assert len(rest) <= 2
