"""A checkpoint of another network, optimizer or without an average is not resumed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from effdet_plugin.engine.resume import check_continues
from effdet_plugin.errors import CheckpointError


class Wrapper:
    """What is read of an optimizer wrapper."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer


def network(outputs: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(2, outputs), nn.BatchNorm1d(outputs))


def sgd(model: nn.Module, **more: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, **more)


def checkpoint(name: str | None = 'SGD', **more: Any) -> dict[str, Any]:
    model = network()
    meta = {} if name is None else {'optimizer_type': name}
    return {
        'meta': meta,
        'state_dict': model.state_dict(),
        'optimizer': sgd(model).state_dict(),
        **more,
    }


def check(content: dict[str, Any], model: nn.Module, optimizer: Any, average: bool = False) -> None:
    wrapper: Any = Wrapper(optimizer)
    check_continues(Path('a') / 'x.pth', content, model, wrapper, average)


def test_same__passes() -> None:
    model = network()
    check(checkpoint(), model, sgd(model, nesterov=True))
    check(checkpoint(None), model, sgd(model))
    check(checkpoint(ema_state_dict={}), model, sgd(model), average=True)
    check(checkpoint(), model, sgd(model), average=True)  # the average starts with the weights
    check(checkpoint(optimizer={'a': {}}), model, sgd(model))  # several optimizers


def frozen(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model[0].parameters(), lr=0.1)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters())


@pytest.mark.parametrize(
    ('content', 'model', 'make', 'words'),
    [
        (checkpoint(), network(4), sgd, r'0\.weight \[3, 2\] for \[4, 2\]'),
        (checkpoint(), network().append(nn.Linear(3, 3)), sgd, r'2 of 9.*2\.weight'),
        (checkpoint(), network()[:1], sgd, r'5 tensors .* not in the network.*1\.bias'),
        (checkpoint(), network(), frozen, r'4 parameters in 1 groups, that of the config 2 in 1'),
        (checkpoint(), network(), adam, 'is SGD, not AdamW'),
        (checkpoint(None), network(), adam, 'has no amsgrad, so it was not AdamW'),
        (checkpoint(ema_state_dict={}), network(), sgd, 'moving average.*no hook'),
    ],
)
def test_other__is_refused(
    content: dict[str, Any], model: nn.Module, make: Any, words: str
) -> None:
    with pytest.raises(CheckpointError, match=rf'^a/x\.pth: .*{words}') as error:
        check(content, model, make(model))
    assert '\n' not in str(error.value)
