"""Trained weights from a file into a network: tensors only, every one of them in its place."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from effdet_plugin.errors import CheckpointError

NO_CHECKPOINT = 'none'  # on a command line: random weights, to try the chain


@dataclass(frozen=True)
class Weights:
    """What a checkpoint file holds: tensors by name, and what the training wrote beside them."""

    path: str
    state_dict: dict[str, Tensor]
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes it was trained for, where it says so."""
        dataset_meta = self.meta.get('dataset_meta') or {}
        classes = dataset_meta.get('classes', dataset_meta.get('CLASSES'))
        return (classes,) if isinstance(classes, str) else classes and tuple(classes)


def read_weights(path: Path | str) -> Weights:
    """Read a checkpoint of mmengine's form, or a bare state dict, without running what is in it.

    Args:
        path: File written by ``torch.save``.

    Raises:
        CheckpointError: No such file, a damaged one, one without tensors, or one that holds
            pickled objects, which could run any code.
    """
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'{path}: not read, since it holds pickled objects, which can run any code '
            f'(or is no checkpoint at all); tools/convert.py makes a file of tensors only'
        ) from error
    except OSError as error:
        raise CheckpointError(f'{path}: cannot be opened: {error.strerror or error}') from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f'{path}: damaged, or no checkpoint that torch can read') from error
    return _take_apart(str(path), content)


def _take_apart(path: str, content: Any) -> Weights:
    """Find tensors and meta data in what a file held."""
    outer = content if isinstance(content, Mapping) else {}
    inner = outer.get('state_dict', outer)
    tensors = {
        str(name).removeprefix('module.'): value
        for name, value in (inner.items() if isinstance(inner, Mapping) else ())
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise CheckpointError(f'{path}: holds no weights of a network')
    meta = outer.get('meta')
    return Weights(path, tensors, dict(meta) if isinstance(meta, Mapping) else {})


def load_weights(model: nn.Module, weights: Weights) -> None:
    """Copy weights into a network.

    Args:
        model: Has, e.g. as ``bbox_head.num_classes``, the number of classes of its config.
        weights: All tensors of the network, and no others.

    Raises:
        CheckpointError: Tensors are missing, left over or of another shape; in particular, a
            file for another number of classes.
    """
    expected = getattr(getattr(model, 'bbox_head', None), 'num_classes', None)
    if weights.classes and expected and len(weights.classes) != expected:
        raise CheckpointError(
            f'{weights.path} knows {len(weights.classes)} classes, the config {expected}: '
            f'give the config it was trained with'
        )
    own = model.state_dict()
    given = weights.state_dict
    _refuse(weights.path, 'lacks', own.keys() - given.keys())
    _refuse(
        weights.path, 'has tensors that the config has no place for,', given.keys() - own.keys()
    )
    other = {name for name, tensor in own.items() if tensor.shape != given[name].shape}
    shapes = {f'{name} {list(given[name].shape)} for {list(own[name].shape)}' for name in other}
    _refuse(weights.path, 'has tensors of another shape,', shapes)
    model.load_state_dict(given)


def _refuse(path: str, problem: str, names: set[str]) -> None:
    """Raise an error that names the first of some tensors, if there are any."""
    if names:
        raise CheckpointError(
            f'{path} {problem} {len(names)} in all, e.g. {min(names)}: '
            f'give the config it was trained with'
        )
