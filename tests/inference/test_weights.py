"""Checkpoints: tensors only, all in their place, every mistake one line."""

import os
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from effdet_plugin.errors import CheckpointError
from effdet_plugin.inference.weights import Weights, load_weights, read_weights


class _Trap:
    """An object whose unpickling leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize('bare', [True, False])
def test_read_weights__bare_or_in_mmengines_form(tmp_path: Path, bare: bool) -> None:
    state = OrderedDict({'module.weight': torch.ones(2, 2)})
    meta = {'dataset_meta': {'classes': ['cat', 'dog']}, 'epoch': 3}
    torch.save(state if bare else {'state_dict': state, 'meta': meta}, tmp_path / 'a.pth')
    weights = read_weights(tmp_path / 'a.pth')
    assert list(weights.state_dict) == ['weight']
    assert weights.classes == (None if bare else ('cat', 'dog'))


def test_read_weights__never_runs_what_is_pickled(tmp_path: Path) -> None:
    mark = tmp_path / 'mark'
    torch.save({'state_dict': {}, 'meta': _Trap(mark)}, tmp_path / 'trap.pth')
    with pytest.raises(CheckpointError, match=r'trap\.pth: not read'):
        read_weights(tmp_path / 'trap.pth')
    assert not mark.exists()


def test_read_weights__says_what_is_wrong(tmp_path: Path) -> None:
    whole, cut, text, empty = (tmp_path / name for name in ('whole', 'cut', 'text', 'empty'))
    torch.save({'state_dict': {'weight': torch.rand(100, 100)}}, whole)
    cut.write_bytes(whole.read_bytes()[:9000])
    text.write_text('not weights')
    empty.touch()
    torch.save({'epoch': 3}, tmp_path / 'no_weights')
    for name in ('cut', 'text', 'empty', 'no_weights', 'missing'):
        with pytest.raises(CheckpointError, match=name) as caught:
            read_weights(tmp_path / name)
        assert '\n' not in str(caught.value)


class _Model(nn.Module):
    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.bbox_head = nn.Linear(3, num_classes)
        self.bbox_head.num_classes = num_classes  # type: ignore[assignment]


def test_load_weights__copies_every_tensor() -> None:
    source, target = _Model(), _Model()
    load_weights(target, Weights('a', source.state_dict()))
    assert torch.equal(target.bbox_head.weight, source.bbox_head.weight)


def test_load_weights__names_the_tensor_that_does_not_fit() -> None:
    state = _Model().state_dict()
    cases = {
        r'lacks.* 1 in all, e\.g\. bbox_head\.bias': {
            'bbox_head.weight': state['bbox_head.weight']
        },
        r'no place for.* 1 in all, e\.g\. other': {**state, 'other': torch.zeros(1)},
        r'another shape.*bbox_head\.bias \[4\] for \[2\]': _Model(4).state_dict(),
    }
    for says, tensors in cases.items():
        with pytest.raises(CheckpointError, match=says):
            load_weights(_Model(), Weights('a', tensors))


def test_load_weights__another_number_of_classes() -> None:
    weights = Weights('a.pth', _Model(3).state_dict(), {'dataset_meta': {'classes': tuple('abc')}})
    with pytest.raises(CheckpointError, match=r'a\.pth knows 3 classes, the config 2'):
        load_weights(_Model(), weights)
