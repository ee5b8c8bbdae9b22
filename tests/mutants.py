"""Structure-aware mutants of what a checkpoint holds, and of bytes."""

import copy
import random
from typing import Any

import torch

_ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1 << 70, 1e30, float('nan'), '', 'x\n\x1b[2J', b'\0', [], (), {}, {'a': {}},
    [[]], torch.ones(0), torch.ones(1, dtype=torch.complex64), torch.ones(2, 3, 4),
    torch.full((3,), float('nan')), torch.ones(3, dtype=torch.bool),
)  # fmt: skip


def mutants_of(content: Any, chance: random.Random) -> Any:
    """A copy with one to three values replaced, removed, renamed or exchanged, at any depth."""
    mutant = copy.deepcopy(content)
    for _ in range(chance.randint(1, 3)):
        node = mutant
        while True:
            keys = list(node) if isinstance(node, dict) else range(len(node))
            key = chance.choice(list(keys))
            inner = node[key]
            if not (isinstance(inner, dict | list) and inner) or chance.random() < 0.15:
                break
            node = inner
        _change(node, key, chance)
        if not mutant:
            break
    return mutant


def _change(node: Any, key: Any, chance: random.Random) -> None:
    what = chance.randrange(5)
    if what == 0:
        del node[key]
    elif what == 1 and isinstance(node, dict):
        node[chance.choice((1, None, f'{key}x', 'state_dict', 'meta'))] = node.pop(key)
    elif what == 2 and isinstance(node[key], torch.Tensor) and node[key].dim():
        tensor = node[key]
        node[key] = chance.choice((tensor[:0], tensor[None], tensor.double(), tensor.flatten()[:1]))
    elif what == 3:
        other = chance.choice(list(node) if isinstance(node, dict) else range(len(node)))
        node[key], node[other] = node[other], node[key]
    else:
        node[key] = chance.choice(_ODD)


def mutant_bytes(data: bytes, chance: random.Random) -> bytes:
    """A copy with bytes changed, a part cut out, repeated, zeroed, or the end cut off."""
    out = bytearray(data)
    start = chance.randrange(len(out))
    length = chance.choice((1, 2, 8, 64, 4096))
    what = chance.randrange(6)
    if what == 0:
        out[start : start + length] = bytes(length)
    elif what == 1:
        out[start : start + length] = chance.randbytes(length)
    elif what == 2:
        del out[start : start + length]
    elif what == 3:
        out[start:start] = out[start : start + length]
    elif what == 4:
        del out[start:]
    else:
        for _ in range(chance.randint(1, 8)):
            out[chance.randrange(len(out))] = chance.choice((0, 1, 127, 128, 255))
    return bytes(out)
