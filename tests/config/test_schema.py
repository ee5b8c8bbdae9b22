"""Which keys a constructor takes, over its class hierarchy."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from effdet_plugin.config.schema import MODEL, find_type, nearest, signature_of
from effdet_plugin.errors import ConfigError


class Closed:
    def __init__(self, a: int, b: int = 0) -> None: ...


class HandsOn(Closed):
    def __init__(self, c: int, **kwargs: Any) -> None: ...


class Inherits(HandsOn):
    pass


class StopsBefore(Closed):
    def __init__(self, d: int) -> None: ...


class Mixin:
    def __init__(self, *args: Any, clip: float = 0, **kwargs: Any) -> None: ...


class Mixed(Mixin, Closed):
    pass


class CallsPastTheFirst(StopsBefore, HandsOn):
    def __init__(self, **kwargs: Any) -> None: ...


class KeepsAll(nn.Module):
    def __init__(self, e: int, **kwargs: Any) -> None: ...


class Nothing(nn.Module):
    pass


def function(x: int, *, y: int = 0) -> None: ...


@pytest.mark.parametrize(
    ('target', 'names', 'is_open'),
    [
        (Closed, 'a b', False),
        (HandsOn, 'a b c', False),
        (Inherits, 'a b c', False),
        (StopsBefore, 'd', False),
        (Mixed, 'a b clip', False),
        (CallsPastTheFirst, 'a b c d', False),
        (KeepsAll, 'e', True),
        (Nothing, '', False),
        (function, 'x y', False),
        (nn.Conv2d, None, False),
    ],
)
def test_signature_of(target: Any, names: str | None, is_open: bool) -> None:
    signature = signature_of(target)
    assert signature.is_open is is_open
    if names is None:
        assert {'in_channels', 'groups', 'padding_mode'} <= signature.names
    else:
        assert signature.names == set(names.split())


@pytest.mark.parametrize(
    ('name', 'allowed', 'expected'),
    [
        ('num_cels', ['num_cells', 'num_outs'], "; did you mean 'num_cells'?"),
        ('zzz', ['b', 'a'], '; choose one of a, b'),
        ('zzz', [f'name{i}' for i in range(50)], ''),
        ('zzz', [], ''),
    ],
)
def test_nearest(name: str, allowed: list[str], expected: str) -> None:
    assert nearest(name, allowed) == expected


def test_find_type__of_a_package_that_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'broken_zoo.py').write_text('raise ImportError')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r'model\.type.*broken_zoo is not imported') as caught:
        find_type('broken_zoo.ResNet', MODEL, 'model.type')
    # The nearest name would be that of another network.
    assert 'did you mean' not in str(caught.value)
