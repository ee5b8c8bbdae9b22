"""The order of the tests in several processes."""

from typing import Any

import order
import pytest


class Item:
    def __init__(self, nodeid: str) -> None:
        self.nodeid = nodeid


def some_of(name: str, count: int) -> list[Any]:
    return [Item(f'{name}::{number}') for number in range(count)]


def test_ordered__long_files_first_in_equal_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, 'SECONDS', {'b': 50.0, 'c': 40.0, 'x': 60.0})
    monkeypatch.setattr(order, 'TOGETHER', {'y': 'x'})
    counts = {'a': 10, 'b': 3, 'c': 2, 'x': 1, 'd': 4, 'y': 2, 'e': 1}
    items = [item for name, count in counts.items() for item in some_of(name, count)]
    found = [item.nodeid for item in order.ordered(items, 2)]
    assert sorted(found) == sorted(item.nodeid for item in items)
    first, second = found[:11], found[11:]
    assert first[:3] == ['x::0', 'y::0', 'y::1']
    assert second[:5] == ['b::0', 'b::1', 'b::2', 'c::0', 'c::1']
    for part in (first[3:], second[5:]):  # a file may be cut, its tests keep their order
        assert [n for n in part if n[0] == 'a'] == sorted(n for n in part if n[0] == 'a')


@pytest.mark.parametrize('number', [2, 3, 5])
@pytest.mark.parametrize('count', [1, 4, 23])
def test_ordered__loses_no_test(number: int, count: int) -> None:
    items = [item for i in range(7) for item in some_of(f'{i}', (count * i) % 11)]
    found = order.ordered(items, number)
    assert len(found) == len(items)
    assert {id(item) for item in found} == {id(item) for item in items}


def test_seconds__are_of_files_that_exist() -> None:
    from support import REPOSITORY

    for name in (*order.SECONDS, *order.TOGETHER, *order.TOGETHER.values()):
        assert (REPOSITORY / name).exists(), name
