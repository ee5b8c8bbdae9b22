"""A config and a checkpoint as one callable: images in, mmdet's data samples out."""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope

from effdet_plugin.compat import check_compiled_ops
from effdet_plugin.config import load, size_pipelines
from effdet_plugin.config.dataset_nodes import class_names
from effdet_plugin.config.embedded import damage_is_told, embedded_config
from effdet_plugin.download import WEB, local_path
from effdet_plugin.engine.load_weights import (
    check_classes,
    check_compatible,
    classes_of,
    num_classes_of,
    weights_of,
)
from effdet_plugin.errors import ConfigError
from effdet_plugin.files import RGBImage, load_weights_only
from effdet_plugin.images import check_array, read_image
from effdet_plugin.inference.tta import TTA, apply_tta
from effdet_plugin.ops.boxes import clip_boxes
from effdet_plugin.weights_only import weights_only_loads

NO_CHECKPOINT = 'none'  # random weights, to try a config without a checkpoint
ImageInput = RGBImage | Path | str


class Detector:
    """Detect objects in images.

        detector = Detector('configs/efficientdet/d0_coco.py', 'd0.pth')
        for sample in detector(['street.jpg', 'room.jpg']):
            print(sample.pred_instances.bboxes, sample.pred_instances.scores)

    Args:
        config: A config or the path of one; None takes the one in the checkpoint, of which no code
            is run (see `effdet_plugin.config.embedded`). Its test pipeline prepares the images.
        checkpoint: Path of trained weights, or ``'none'`` for random ones.
        device: torch device; None takes the fastest one available.
        score_thr: Detections with a lower score are dropped.
        batch_size: Number of images per forward pass.
        seed: Seed of random weights.
        tta: Test-time augmentation, as in the evaluation; None: each image as it is.

    Attributes:
        model: The network, in evaluation mode.
        classes: Name of each label: the checkpoint's, else the config's.

    Raises:
        ConfigError: The config has no test pipeline, or the device is unknown.
        CheckpointError: The weights cannot be read, or belong to another config.
    """

    def __init__(
        self,
        config: Config | Path | str | None,
        checkpoint: Path | str,
        device: str | None = None,
        score_thr: float = 0.0,
        batch_size: int = 1,
        seed: int = 0,
        tta: TTA | None = None,
    ) -> None:
        given = config if config is None or isinstance(config, Config) else load(config)
        is_random = str(checkpoint) == NO_CHECKPOINT
        if str(checkpoint).startswith(WEB):
            checkpoint = local_path(checkpoint)
        loaded = {} if is_random else load_weights_only(checkpoint)
        self.config = embedded_config(loaded, str(checkpoint)) if given is None else given
        self.score_thr = score_thr
        self.batch_size = batch_size
        init_default_scope(self.config.get('default_scope', 'mmdet'))
        # Errors in a config of the user's stay as they are.
        told = damage_is_told(str(checkpoint)) if config is None else nullcontext()
        with weights_only_loads(), told:
            model = _build(self.config, loaded, seed)
        self.model = model.to(_device(device)).eval()
        self.classes = _class_names(self.config, loaded, self.model)
        cfg, self._network = copy.deepcopy(self.config), self.model
        size_pipelines(cfg.test_dataloader.dataset)
        if tta is not None:
            self._network = MODELS.build({**apply_tta(cfg, tta), 'module': self.model})
        self._prepare, self._takes_rgb = _test_pipeline(cfg)

    def __call__(self, images: ImageInput | Sequence[ImageInput]) -> list[DetDataSample]:
        """Detect the objects in one or several images.

        Args:
            images: One image or several: paths, or RGB pixels ``(H, W, 3)`` uint8.

        Returns:
            One sample per image, in the given order, on the CPU. ``pred_instances`` has ``bboxes``
            ``(N, 4)`` xyxy in pixels of the image, ``scores`` ``(N,)`` and ``labels`` ``(N,)``.
            Boxes are clipped to the image. The evaluation does not clip them, as in google/automl
            efficientdet/tf2/postprocess.py.

        Raises:
            DatasetError: A file cannot be read.
        """
        given: list[Any] = list(images) if isinstance(images, (list, tuple)) else [images]
        starts = range(0, len(given), self.batch_size)
        return [
            sample
            for start in starts
            for sample in self._predict(given[start : start + self.batch_size])
        ]

    @torch.no_grad()
    def _predict(self, batch: Sequence[ImageInput]) -> Iterator[DetDataSample]:
        """Yield the samples of one batch."""
        prepared = [self._prepare(self._as_results(image)) for image in batch]
        for sample in self._network.test_step(pseudo_collate(prepared)):
            found = sample.pred_instances
            found.bboxes = clip_boxes(found.bboxes, sample.ori_shape)
            is_inside = (found.bboxes[:, 2:] > found.bboxes[:, :2]).all(dim=1)
            sample.pred_instances = found[is_inside & (found.scores >= self.score_thr)]
            yield sample.cpu()

    def _as_results(self, image: ImageInput) -> dict[str, Any]:
        """Return an image as the steps after the loader of a pipeline expect it."""
        if isinstance(image, np.ndarray):
            check_array(image)
        pixels = image if isinstance(image, np.ndarray) else read_image(image)
        size = pixels.shape[:2]
        return {
            'img': np.ascontiguousarray(pixels if self._takes_rgb else pixels[..., ::-1]),
            'img_path': None if isinstance(image, np.ndarray) else str(image),
            'img_id': 0,
            'img_shape': size,
            'ori_shape': size,
        }


def _device(name: str | None) -> torch.device:
    """Return a device, after checking that it works."""
    try:
        device = torch.device(name or get_device())
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f'device {name}: {str(error).splitlines()[0]}') from error
    return device


def _build(config: Config, checkpoint: Mapping[str, Any], seed: int) -> BaseModel:
    """Build the network with the weights of a checkpoint, or random ones if that is empty."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: BaseModel = MODELS.build(config.model)
    check_compiled_ops(model)
    if checkpoint:
        weights = weights_of(checkpoint)
        check_classes(classes_of(checkpoint), num_classes_of(model))
        check_compatible(weights, model.state_dict(), complete=True)
        model.load_state_dict(weights, strict=False)
    return model


def _test_pipeline(config: Config) -> tuple[Compose, bool]:
    """Build the config's test pipeline without its loaders.

    Returns:
        The pipeline, and whether it takes RGB pixels (else BGR, which mmdet's loaders give). A
        first step ``ToRGB`` is left out, too, and then it takes RGB.
    """
    steps = _without_loaders(get_test_pipeline_cfg(config))
    takes_rgb = bool(steps) and 'ToRGB' in str(steps[0]['type'])
    return Compose(steps[1:] if takes_rgb else steps), takes_rgb


def _without_loaders(steps: Sequence[Any]) -> list[Any]:
    """Drop the steps that read files, also inside ``TestTimeAug``."""
    kept = []
    for step in steps:
        if step['type'] == 'TestTimeAug':
            groups = [_without_loaders(group) for group in step['transforms']]
            kept.append({**step, 'transforms': [group for group in groups if group]})
        elif not any(word in str(step['type']) for word in ('LoadImage', 'LoadAnnotations')):
            kept.append(step)
    return kept


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
