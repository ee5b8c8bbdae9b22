"""Variables of the reference's networks: names and shapes of all, values of the oracle's recipe."""

import gzip
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import support
from effdet_plugin.convert.networks import MODELS, Structure, network

__all__ = ['MODELS', 'numbered_values', 'parameters', 'recipe_values', 'structure_of', 'variables']


@cache
def variables(model: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every variable of ``d0`` ... ``lite4``."""
    with gzip.open(support.oracle_file('variables.json.gz')) as file:
        table: dict[str, Any] = json.load(file)
    return {name: tuple(shape) for name, shape in table[f'efficientdet-{model}'].items()}


def recipe_values(model: str, seed: int = 0) -> dict[str, Tensor]:
    """The oracle's weights."""
    make = support.recipe().value
    return {
        name: torch.from_numpy(make(f'efficientdet-{model}', name, shape, seed))
        for name, shape in variables(model).items()
    }


def numbered_values(model: str) -> dict[str, Tensor]:
    """Weights that are all different, fast to make: a tensor in the wrong place is found out."""
    values, start = {}, 0
    for name, shape in variables(model).items():
        size = torch.Size(shape).numel()
        values[name] = torch.arange(start, start + size, dtype=torch.int32).view(torch.float32)
        # Small integers as bits are denormals, equal only to themselves.
        values[name] = values[name].reshape(shape)
        start += size
    return values


def parameters(model: str) -> Mapping[str, Any]:
    """The reference's own counts."""
    table = json.loads(Path(support.oracle_file('parameters.json')).read_text(encoding='utf-8'))
    return table[f'efficientdet-{model}']


def structure_of(model: str, num_classes: int = 90) -> Structure:
    return Structure(model, num_classes=num_classes, fusion=network(model).fusion)
