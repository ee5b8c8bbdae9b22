"""Loading weights into a network: of other classes for fine-tuning, of another network never."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn

from effdet_plugin.download import WEB, local_path
from effdet_plugin.errors import CheckpointError
from effdet_plugin.weights_only import (
    Classes,
    Weights,
    check_classes,
    check_compatible,
    classes_of,
    explain_refusal,
    first_not_finite,
    load_weights_only,
    num_classes_of,
    weights_of,
    weights_only_loads,
)

# The last convolution of a head's tower; its depthwise half does not depend on the classes.
_PREDICTS = re.compile(r'(?:^|\.)(cls|box)_tower\.predict\.(?!depthwise\.)')
_OTHER_HEAD = re.compile(r'(?:^|\.)\w*head\.(?!.*_tower\.)')


@dataclass(frozen=True)
class Matched:
    """Weights matched to a network.

    Attributes:
        weights: What to load.
        line: What was re-initialised and what was kept, for the log; None if all was kept.
    """

    weights: Weights
    line: str | None


@HOOKS.register_module()
class LoadMatchingHook(Hook):
    """Matches the checkpoint of ``load_from`` to the network before anything else reads it.

    In training a checkpoint of other classes is matched by `match_classes`; in evaluation it is an
    error. Without this hook mmengine logs tensors of other shapes and keeps random weights there.
    """

    priority = 'HIGH'  # before the moving average copies the weights

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Change the weights of ``checkpoint`` in place; a resumed run is checked by its runner."""
        if runner._resume:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        own, old = model.state_dict(), classes_of(checkpoint)
        weights = weights_of(checkpoint)
        # mmengine builds the train loop when a training starts; before that it is a dict, or None.
        if not isinstance(runner._train_loop, BaseLoop):
            check_classes(old, num_classes_of(model))
            check_compatible(weights, own, complete=True)
            return
        new = runner.train_dataloader.dataset.metainfo.get('classes')
        matched = match_classes(weights, own, old, new)
        # Tensors may be missing: a training can start from a backbone alone.
        check_compatible(matched.weights, own, complete=False)
        _log(matched, own)
        checkpoint.setdefault('state_dict', {}).update(matched.weights)


def match_classes(weights: Weights, own: Weights, old: Classes, new: Classes) -> Matched:
    """Match weights to a network of other classes.

    Everything is kept but rows of the predicting layers: rows of classes that both know by name are
    copied from the checkpoint, the others stay as the network has them. In heads other than ours
    these are the layers with another number of outputs, and no row is copied.

    Args:
        weights: Tensors of a checkpoint.
        own: Tensors of the network, initialised.
        old: Class names of the checkpoint.
        new: Class names of the network.
    """
    old_names, new_names = list(old or ()), list(new or ())
    names_differ = bool(old_names and new_names) and old_names != new_names
    layers = sorted(
        name
        for name in own.keys() & weights.keys()
        if _depends_on_classes(name, own[name], weights[name], names_differ)
    )
    if not layers:
        return Matched(weights, None)
    shared = [name for name in new_names if name in old_names]
    matched = {**weights, **{name: own[name].clone() for name in layers}}
    copied = False
    for name in layers:
        if '.cls_tower.' in f'.{name}' and shared:
            copied |= _copy_rows(weights[name], matched[name], old_names, new_names)
    kept = f'{len(shared)} of {len(new_names)} classes kept' if copied else 'no class kept'
    line = (
        'The checkpoint has other classes: all of it is loaded but the predicting layers '
        f'({kept}; tensors re-initialised: {", ".join(layers)})'
    )
    return Matched(matched, line)


def _depends_on_classes(name: str, own: Tensor, other: Tensor, names_differ: bool) -> bool:
    """Whether a tensor depends on the classes, and the checkpoint has other ones."""
    differs = own.shape != other.shape
    if match := _PREDICTS.search(name):
        # Equal shapes do not mean equal classes; boxes depend on the number of anchors only.
        return differs or (names_differ and match[1] == 'cls')
    # Other inputs are another network's, not only other classes'.
    return differs and own.shape[1:] == other.shape[1:] and bool(_OTHER_HEAD.search(name))


def _copy_rows(source: Tensor, target: Tensor, old: list[str], new: list[str]) -> bool:
    """Copy the rows ``anchor * classes + class`` of shared classes; False if shapes forbid it."""
    anchors, rest = divmod(target.shape[0], len(new))
    if rest or source.shape[0] != anchors * len(old) or source.shape[1:] != target.shape[1:]:
        return False
    # Views: writing to them writes to the tensor.
    rows_of_new = target.unflatten(0, (anchors, len(new)))
    rows_of_old = source.unflatten(0, (anchors, len(old)))
    for position, name in enumerate(new):
        if name in old:
            rows_of_new[:, position] = rows_of_old[:, old.index(name)].to(target.device)
    return True


def _log(matched: Matched, own: Weights) -> None:
    if matched.line:
        print_log(matched.line, logger='current')
    missing, unused = own.keys() - matched.weights.keys(), matched.weights.keys() - own.keys()
    for names, what in (
        (missing, 'are not in the checkpoint and stay as they are'),
        (unused, 'of the checkpoint are not in the network'),
    ):
        if names:
            print_log(f'{len(names)} tensors {what}, e.g. {min(names)}', logger='current')
    of_backbone = [name for name in missing if name.startswith('backbone.')]
    if any(not name.endswith('num_batches_tracked') for name in of_backbone):
        print_log(
            f'{len(of_backbone)} tensors of the backbone are not in the checkpoint: is it of '
            'another network? They keep their initial values',
            logger='current',
            level=logging.WARNING,
        )


def fetch_pretrained(model: nn.Module) -> None:
    """Read the checkpoints of ``init_cfg`` safely, before mmengine loads them in its own way.

    Args:
        model: Built; an address in its ``init_cfg`` is replaced by the path of the download.

    Raises:
        CheckpointError: A file is missing, damaged or needs unpickling.
    """
    for module in model.modules():
        init_cfg: Any = getattr(module, 'init_cfg', None)
        for node in init_cfg if isinstance(init_cfg, list) else [init_cfg]:
            place = str(node.get('checkpoint') or '') if isinstance(node, dict) else ''
            if place and (place.startswith(WEB) or '://' not in place):
                node['checkpoint'] = str(local_path(place))
                weights_of(load_weights_only(node['checkpoint']))


def skip_pretrained(model: nn.Module) -> None:
    """Keep a built model from reading ImageNet weights that a checkpoint is about to replace.

    The model is changed and not the config, which is dumped and must be complete for a new run.
    """
    for module in model.modules():
        if getattr(module, 'pretrained', None):
            module.pretrained = False  # type: ignore[assignment]
        if isinstance(getattr(module, 'init_cfg', None), dict):
            init_cfg: Any = module.init_cfg
            if init_cfg.get('type') == 'Pretrained':
                module.init_cfg = None  # type: ignore[assignment]


@contextmanager
def refusals_are_told(place: Any) -> Iterator[None]:
    """Load without running code, and say in one line what was not read for that reason."""
    try:
        with weights_only_loads():
            yield
    except UnpicklingError as error:
        raise CheckpointError(explain_refusal(place, str(error))) from None
    # mmengine takes an unknown scheme for a path, and looks a name up in its lists.
    except (FileNotFoundError, ImportError, KeyError) as error:
        reason = ' '.join(str(error).split())[:200].rstrip('.')
        reason = f'{reason} is no name there' if isinstance(error, KeyError) else reason
        raise CheckpointError(f'{place}: {reason}; give the path of a file, or https://') from error


def check_finite(checkpoint: Mapping[str, Any], place: str) -> None:
    """Refuse weights that did not pass `load_weights_only`: NaN or infinity, by name.

    Raises:
        CheckpointError: ``place`` and the name of the first tensor.
    """
    if name := first_not_finite(checkpoint):
        raise CheckpointError(f'{place}: not finite: {name} holds NaN or infinity')
