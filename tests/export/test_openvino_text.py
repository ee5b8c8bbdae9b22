"""The text of an ``.xml``: entities are refused in whatever encoding they come."""

from pathlib import Path

import pytest

from effdet_plugin.errors import CheckpointError
from effdet_plugin.export.openvino import _metadata

HOSTILE = '<?xml version="1.0" encoding="{}"?><!DOCTYPE a [<!ENTITY b "c">]><net>&b;</net>'


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16', 'utf-16-le', 'utf-16-be', 'utf-7'])
def test_metadata__entities_are_refused(encoding: str) -> None:
    text = HOSTILE.format(encoding).encode(encoding)
    with pytest.raises(CheckpointError, match=r'm\.xml'):
        _metadata(text, Path('m.xml'))


def test_metadata__of_another_program() -> None:
    with pytest.raises(CheckpointError, match='no metadata of effdet_plugin'):
        _metadata(b'<net><rt_info/></net>', Path('m.xml'))
