"""A checkpoint of other classes: what of it fits a network, and where it does not fit at all."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn

from effdet_plugin.errors import CheckpointError

Weights = dict[str, Tensor]
Classes = Sequence[str] | None
# The last convolution of a head's tower; its depthwise half does not know the classes.
_PREDICTS = re.compile(r'(?:^|\.)(cls|box)_tower\.predict\.(?!depthwise\.)')
_OTHER_HEAD = re.compile(r'(?:^|\.)\w*head\.(?!.*_tower\.)')


@dataclass(frozen=True)
class Fitted:
    """Weights for a network.

    Attributes:
        weights: What to load.
        line: What was left out and carried over, for the log; None if everything fits as it is.
    """

    weights: Weights
    line: str | None


def classes_of(checkpoint: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the class names that a checkpoint carries; None if it carries none."""
    dataset_meta = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
    classes = dataset_meta.get('classes')
    return (classes,) if isinstance(classes, str) else tuple(classes) if classes else None


def weights_of(checkpoint: Mapping[str, Any]) -> Weights:
    """Return the weights of a checkpoint or bare state dict, by the names of a bare model."""
    weights = checkpoint.get('state_dict', checkpoint)
    return {name.removeprefix('module.'): value for name, value in weights.items()}


def fit_classes(weights: Weights, own: Weights, old: Classes, new: Classes) -> Fitted:
    """Make weights fit a network of other classes.

    Everything is kept but rows of the predicting layers: those of classes that both know by name
    are carried over, the others stay as the network has them. In heads other than ours these are
    the layers whose number of outputs differs, and nothing is carried.

    Args:
        weights: Tensors of a checkpoint.
        own: Tensors of the network, initialised.
        old: Class names of the checkpoint.
        new: Class names of the network.
    """
    names_differ = bool(old and new) and list(old or ()) != list(new or ())
    layers = [
        name
        for name in own.keys() & weights.keys()
        if _begins_anew(name, own[name], weights[name], names_differ)
    ]
    if not layers:
        return Fitted(weights, None)
    shared = [name for name in new or () if name in (old or ())]
    fitted = dict(weights)
    carried = False
    for name in layers:
        fitted[name] = own[name].clone()
        if '.cls_tower.' in f'.{name}' and shared:
            carried |= _carry(weights[name], fitted[name], list(old or ()), list(new or ()))
    kept = f'{len(shared)} of {len(new or ())} classes carried over' if carried else 'none carried'
    line = (
        'The checkpoint is of other classes: everything is kept but the predicting layers '
        f'({kept}; tensors begun anew: {", ".join(sorted(layers))})'
    )
    return Fitted(fitted, line)


def _begins_anew(name: str, own: Tensor, other: Tensor, names_differ: bool) -> bool:
    """Whether a tensor depends on the classes, and those of the checkpoint are others."""
    differs = own.shape != other.shape
    if match := _PREDICTS.search(name):
        return differs or (names_differ and match[1] == 'cls')
    return differs and own.shape[1:] == other.shape[1:] and bool(_OTHER_HEAD.search(name))


def _carry(source: Tensor, target: Tensor, old: Sequence[str], new: Sequence[str]) -> bool:
    """Copy the rows ``anchor * classes + class`` of shared classes; False if shapes forbid it."""
    anchors, rest = divmod(target.shape[0], len(new))
    if rest or source.shape[0] != anchors * len(old) or source.shape[1:] != target.shape[1:]:
        return False
    rows_of_new = target.unflatten(0, (anchors, len(new)))
    rows_of_old = source.unflatten(0, (anchors, len(old)))
    for position, name in enumerate(new):
        if name in old:
            rows_of_new[:, position] = rows_of_old[:, old.index(name)].to(target.device)
    return True


def check_fit(weights: Weights, own: Weights, *, complete: bool) -> None:
    """Refuse weights of another network.

    Args:
        weights: Tensors to load.
        own: Tensors of the network.
        complete: Also refuse if some are missing.

    Raises:
        CheckpointError: Names the first tensor that does not fit.
    """
    other = [n for n in own if n in weights and own[n].shape != weights[n].shape]
    missing = [n for n in own if n not in weights]
    if other:
        name = other[0]
        raise CheckpointError(
            f'the checkpoint does not fit the config: {len(other)} tensors have other shapes, e.g. '
            f'{name} {list(weights[name].shape)} for {list(own[name].shape)}; give it the config '
            'it was trained with'
        )
    if missing and (complete or len(missing) == len(own)):
        raise CheckpointError(
            f'the checkpoint does not fit the config: {len(missing)} of {len(own)} tensors are '
            f'missing, e.g. {missing[0]}; give it the config it was trained with'
        )


def check_classes(old: Classes, num_classes: int | None) -> None:
    """Refuse to predict with a checkpoint of another number of classes, where both are known.

    Raises:
        CheckpointError: The numbers differ.
    """
    if old is not None and num_classes is not None and len(old) != num_classes:
        raise CheckpointError(
            f'the checkpoint knows {len(old)} classes, the config {num_classes}; give it the '
            f'config it was trained with, or set num_classes={len(old)}'
        )


def load_matching(
    model: nn.Module, checkpoint: Mapping[str, Any], classes: Classes = None
) -> str | None:
    """Load for fine-tuning: everything but the rows of classes that the checkpoint does not know.

    Args:
        model: Network, initialised.
        checkpoint: Checkpoint or bare state dict.
        classes: Names of the network's classes, if known.

    Returns:
        The line that was logged about other classes; None if they are the same.

    Raises:
        CheckpointError: The checkpoint is of another network.
    """
    own = model.state_dict()
    fitted = fit_classes(weights_of(checkpoint), own, classes_of(checkpoint), classes)
    check_fit(fitted.weights, own, complete=False)
    _log_fit(fitted, own)
    model.load_state_dict(fitted.weights, strict=False)
    return fitted.line


def _log_fit(fitted: Fitted, own: Weights) -> None:
    if fitted.line:
        print_log(fitted.line, logger='current')
    for names, what in (
        (own.keys() - fitted.weights.keys(), 'are not in the checkpoint and stay as they are'),
        (fitted.weights.keys() - own.keys(), 'of the checkpoint have no place in the network'),
    ):
        if names:
            print_log(f'{len(names)} tensors {what}, e.g. {min(names)}', logger='current')
    missing = [name for name in own.keys() - fitted.weights.keys() if name.startswith('backbone.')]
    if any(not name.endswith('num_batches_tracked') for name in missing):
        print_log(
            f'{len(missing)} tensors of the backbone are not in the checkpoint: is it of another '
            'network? They keep the values with which they began',
            logger='current',
            level=logging.WARNING,
        )


@HOOKS.register_module()
class LoadMatchingHook(Hook):
    """Fits what ``load_from`` reads to the network, before anything else sees it.

    In training a checkpoint of other classes is fitted by `fit_classes`; in evaluation it is an
    error. Without this hook mmengine logs the shapes that differ and goes on with random weights.
    """

    priority = 'HIGH'  # before the moving average takes its copy

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Change the weights of ``checkpoint`` in place; a resumed run's are right already."""
        if runner._resume:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        own, old = model.state_dict(), classes_of(checkpoint)
        weights = weights_of(checkpoint)
        if not isinstance(runner._train_loop, BaseLoop):
            check_classes(old, num_classes_of(model))
            check_fit(weights, own, complete=True)
            return
        new = runner.train_dataloader.dataset.metainfo.get('classes')
        fitted = fit_classes(weights, own, old, new)
        check_fit(fitted.weights, own, complete=False)
        _log_fit(fitted, own)
        checkpoint.setdefault('state_dict', {}).update(fitted.weights)


def num_classes_of(model: nn.Module) -> int | None:
    """Return the number of classes that a detector's head predicts; None if it does not say."""
    for detector in (model, getattr(model, 'roi_head', None)):
        count: int | None = getattr(getattr(detector, 'bbox_head', None), 'num_classes', None)
        if count is not None:
            return count
    return None
