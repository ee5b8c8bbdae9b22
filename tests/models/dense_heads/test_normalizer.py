import pytest
import torch

from effdet_plugin.models.dense_heads import normalizer
from effdet_plugin.models.dense_heads.normalizer import loss_normalizer


@pytest.mark.parametrize(
    ('kind', 'expected'), [('local', 6), ('mean', 6), ('global', 6), ('constant', 100)]
)
def test_one_process(kind: str, expected: float) -> None:
    positives = torch.tensor(5.0)
    assert loss_normalizer(kind, positives).item() == expected
    assert positives.item() == 5


@pytest.mark.parametrize(
    ('kind', 'expected'), [('local', 6), ('mean', 5), ('global', 4.25), ('constant', 3)]
)
def test_four_processes(kind: str, expected: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normalizer, 'get_world_size', lambda: 4)
    monkeypatch.setattr(normalizer, 'all_reduce', lambda x: x.fill_(16))  # of 16 in all
    assert loss_normalizer(kind, torch.tensor(5.0), value=3.0).item() == expected


def test_unknown() -> None:
    with pytest.raises(ValueError, match="loss_normalizer='sum' is unknown; choose one of local"):
        loss_normalizer('sum', torch.tensor(1.0))
