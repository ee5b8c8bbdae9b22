"""The stream of random numbers goes on where it was held."""

import random
from pathlib import Path

import numpy as np
import torch

from effdet_plugin.engine.random_state import TrainingRandomness, capture, restore


def draw() -> list[float]:
    # `normal` and `gauss` keep a second number in hand, which is a part of the state.
    return [
        float(torch.rand(1)),
        float(torch.randn(1)),
        float(np.random.rand()),
        float(np.random.normal()),
        random.random(),
        random.gauss(0, 1),
    ]


def test_restore__after_a_plain_file(tmp_path: Path) -> None:
    draw()
    torch.save(capture(), tmp_path / 'state.pth')
    expected = [draw(), draw()]
    restore(torch.load(tmp_path / 'state.pth', weights_only=True))
    assert [draw(), draw()] == expected


def test_training_randomness__what_happens_in_between_does_not_matter() -> None:
    randomness = TrainingRandomness()
    assert not randomness.take_up()
    draw()
    randomness.hold()
    expected = draw()
    draw()
    assert randomness.take_up()
    assert draw() == expected
