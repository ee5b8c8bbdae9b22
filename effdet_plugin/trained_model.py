"""A checkpoint as a network that predicts: config, weights, class names and device together."""

import copy
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope

from effdet_plugin.compat import check_compiled_ops
from effdet_plugin.config import (
    Options,
    check,
    load,
    merge_options,
    set_image_size,
    tell_differences,
)
from effdet_plugin.config.dataset_nodes import class_names, dataset_nodes
from effdet_plugin.config.embedded import EMBEDDED, damage_is_told, embedded_config
from effdet_plugin.download import WEB, local_path
from effdet_plugin.errors import CheckpointError, ConfigError, UserError
from effdet_plugin.files import sha256
from effdet_plugin.models.detectors import EfficientDet
from effdet_plugin.models.fold import fold
from effdet_plugin.models.losses import check_channels
from effdet_plugin.models.postprocessor import DetectionPostProcessor, can_choose_classes
from effdet_plugin.weights_only import (
    check_classes,
    check_compatible,
    classes_of,
    load_weights_only,
    num_classes_of,
    weights_of,
    weights_only_loads,
)

NO_CHECKPOINT = 'none'  # random weights, to try a config without a checkpoint


@dataclass(frozen=True)
class TrainedModel:
    """A network with the weights of a checkpoint.

    Attributes:
        config: The config that it was built from.
        model: In evaluation mode, on its device.
        classes: Name of each label: the checkpoint's, else the config's, else the labels' numbers.
        checkpoint: Path of its weights; None if they are random.
        meta: What the checkpoint says about itself; empty if the weights are random.
    """

    config: Config
    model: BaseModel
    classes: tuple[str, ...]
    checkpoint: Path | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def checkpoint_hash(self) -> str | None:
        """The checkpoint's sha256 in hexadecimal; None if the weights are random."""
        return sha256(self.checkpoint) if self.checkpoint else None


def load_trained(
    config: Config | Path | str | None,
    checkpoint: Path | str,
    device: str | torch.device | None = None,
    seed: int = 0,
    *,
    image_size: str | int | tuple[int, int] | None = None,
    options: Options | None = None,
) -> TrainedModel:
    """Build the network of a config, with the weights of a checkpoint.

    Args:
        config: A config or the path of one; None takes the one in the checkpoint, of which no code
            is run (see `effdet_plugin.config.embedded`).
        checkpoint: Path or address of trained weights, or ``'none'`` for random ones.
        device: None takes the fastest one available.
        seed: Seed of random weights.
        image_size: Replaces the config's; see `effdet_plugin.config.parse_size`.
        options: See `effdet_plugin.config.merge_options`.

    Raises:
        ConfigError: The config, an option or the device cannot be used.
        CheckpointError: The weights cannot be read, or belong to another config.
    """
    place = device_of(device)
    given = config if config is None or isinstance(config, Config) else load(config)
    is_random = str(checkpoint) == NO_CHECKPOINT
    if given is None and is_random:
        raise CheckpointError(
            'none: carries no config, random weights need one: give it, such as d0_coco'
        )
    path = None if is_random else _path(checkpoint)
    loaded = {} if path is None else load_weights_only(path)
    cfg = embedded_config(loaded, str(checkpoint)) if given is None else given
    if image_size is not None or options:
        cfg = changed(cfg, image_size, options)
    meta = loaded.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    if EMBEDDED in meta:
        tell_differences(meta[EMBEDDED], cfg)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    # Errors in a config of the user's stay as they are.
    told = damage_is_told(str(checkpoint)) if given is None else nullcontext()
    with weights_only_loads(), told:
        model = _build(cfg, loaded, seed)
    return TrainedModel(
        config=cfg,
        model=model.to(place).eval(),
        classes=_class_names(cfg, loaded, model),
        checkpoint=path,
        meta=meta,
    )


def device_of(name: str | torch.device | None) -> torch.device:
    """Return a device, after checking that it works.

    Args:
        name: Such as ``cpu``, ``cuda:1``; None takes the fastest one available.

    Raises:
        ConfigError: It is unknown, or not there.
    """
    try:
        device = torch.device(name or get_device())
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f'device {name}: {str(error).splitlines()[0]}') from error
    return device


def set_nms(
    trained: TrainedModel,
    method: str | None,
    max_per_img: int | None,
    score_thr: float = 0.0,
    labels: Sequence[int] | None = None,
) -> None:
    """Change the NMS of our head; of other heads only fewer detections can be had, by the caller.

    Args:
        trained: Its network is changed in place.
        method: ``'hard'`` or ``'gaussian'``; None keeps the config's.
        max_per_img: Number of detections; None keeps the config's.
        score_thr: Detections of a lower score are not needed: what scores lower costs nothing.
        labels: Of the classes that are needed; the others do not take places of theirs. Left to the
            caller where classes suppress each other.

    Raises:
        ConfigError: A method for a head that has its own NMS.
    """
    head: Any = getattr(trained.model, 'bbox_head', None)
    if method is None and max_per_img is None and not score_thr and labels is None:
        return
    if not hasattr(head, 'postprocessor'):
        if method is not None:
            kind = type(head or trained.model).__name__
            raise ConfigError(f'nms: {kind} has its own NMS; change it by its config')
        return
    node = dict(trained.config.model.bbox_head.get('postprocessor') or {})
    node.setdefault('type', 'DetectionPostProcessor')
    node |= {} if method is None else {'method': method}
    node |= {} if max_per_img is None else {'max_per_img': max_per_img}
    if type(head.postprocessor) is DetectionPostProcessor:
        # Just below, since NMS keeps what is above its threshold.
        limit = float(np.nextafter(np.float32(score_thr), np.float32(0)))
        node |= {'score_thr': limit} if limit > head.postprocessor.score_thr else {}
        node |= {} if labels is None or not can_choose_classes(**node) else {'classes': labels}
    head.postprocessor = MODELS.build(node).to(next(trained.model.parameters()).device)


def folded(model: BaseModel, config: Config | None) -> BaseModel:
    """Return the fast form of a network of ours, in channels-last memory; any other as it is.

    Args:
        model: In evaluation mode; not changed.
        config: Gives the one size of all its images; None: they have several.
    """
    if not isinstance(model, EfficientDet):
        return model
    nodes = [] if config is None else dataset_nodes(config.test_dataloader.dataset)
    size = next((node['image_size'] for node in nodes if node.get('image_size')), None)
    try:
        fast: BaseModel = fold(model, None if size is None else tuple(size))
    except UserError as error:
        print_log(f'not folded: {error}', logger='current', level=logging.WARNING)
        return model
    fast.channels_last = True
    return fast.to(memory_format=torch.channels_last)


def _path(checkpoint: Path | str) -> Path:
    is_address = str(checkpoint).startswith(WEB)
    return local_path(checkpoint) if is_address else Path(checkpoint).expanduser()


def changed(
    config: Config, image_size: str | int | tuple[int, int] | None, options: Options | None
) -> Config:
    """Return a copy of a config with another size and options; see `load_trained`."""
    changed = copy.deepcopy(config)
    if options:
        merge_options(changed, options)
    if image_size is not None:
        set_image_size(changed, image_size)
    checked = copy.deepcopy(changed)
    for node in dataset_nodes(checked.test_dataloader.dataset):
        if node.get('dataset') is None and node.get('type') == 'EfficientDetDataset':
            node.pop('metainfo', None)  # of a config that a checkpoint carries, which has no source
    check(checked)
    return changed


def _build(config: Config, checkpoint: Mapping[str, Any], seed: int) -> BaseModel:
    """Build the network with the weights of a checkpoint, or random ones if that is empty."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: BaseModel = MODELS.build(config.model)
    check_compiled_ops(model)
    check_channels(model)
    if checkpoint:
        weights = weights_of(checkpoint)
        check_classes(classes_of(checkpoint), num_classes_of(model))
        check_compatible(weights, model.state_dict(), complete=True)
        model.load_state_dict(weights, strict=False)
    return model


def _class_names(
    config: Config, checkpoint: Mapping[str, Any], model: BaseModel
) -> tuple[str, ...]:
    """Return the name of each label."""
    names = classes_of(checkpoint) or class_names(config.test_dataloader.dataset)
    count = num_classes_of(model) or len(names)
    if len(names) == count:
        return names
    print_log(
        f'the network has {count} classes, but {len(names)} names are given: labels are shown as '
        "numbers; name them by the dataset's metainfo=dict(classes=...)",
        logger='current',
        level=logging.WARNING,
    )
    return tuple(str(label) for label in range(count))
