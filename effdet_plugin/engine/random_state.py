"""Random numbers of the training, which neither an evaluation nor a restart disturbs."""

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank

from effdet_plugin.engine.plain import to_plain

State = dict[str, Any]


def capture() -> State:
    """Return the state of the generators of this process, as tensors and plain types."""
    state: State = {
        'torch': torch.get_rng_state(),
        'numpy': to_plain(np.random.get_state(legacy=False)),
        'python': random.getstate(),
    }
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def restore(state: State) -> None:
    """Put the generators of this process into a state of `capture`."""
    torch.set_rng_state(state['torch'].cpu())
    twister = dict(state['numpy']['state'])
    twister['key'] = twister['key'].cpu().numpy().astype(np.uint32)
    np.random.set_state({**state['numpy'], 'state': twister})
    version, words, gauss = state['python']
    random.setstate((version, tuple(words), gauss))
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


class TrainingRandomness:
    """One stream of random numbers over all epochs of a training, whatever happens in between.

    An evaluation draws numbers, and so does every start of a data loader: a run that stopped at the
    end of an epoch would go on with others than one that did not. So the stream is held at the end
    of an epoch and taken up when the first batch of the next one is there, resumed or not.
    """

    def __init__(self) -> None:
        self.states: list[State] = []  # one per process; empty before the first epoch has ended

    def hold(self) -> None:
        """Keep the state of every process; all of them must call it."""
        self.states = all_gather_object(capture())

    def take_up(self) -> bool:
        """Go on where `hold` or a checkpoint stopped.

        Returns:
            Whether it could: a checkpoint of fewer processes has no state for this one.
        """
        if get_rank() >= len(self.states):
            return False
        restore(self.states[get_rank()])
        return True
