"""A config and a checkpoint as one callable: pictures in, mmdet's data samples out."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope

from effdet_plugin.config import load
from effdet_plugin.engine.load_weights import (
    check_classes,
    check_compatible,
    classes_of,
    num_classes_of,
    weights_of,
)
from effdet_plugin.errors import ConfigError
from effdet_plugin.files import load_weights_only
from effdet_plugin.inference.images import RGBImage, read_image
from effdet_plugin.models.compiled_ops import check_compiled_ops
from effdet_plugin.ops.boxes import clip_boxes

NO_CHECKPOINT = 'none'  # random weights, to try the chain
Picture = RGBImage | Path | str


class Detector:
    """Finds objects on pictures.

        detector = Detector('configs/efficientdet/d0_coco.py', 'd0.pth')
        for sample in detector(['street.jpg', 'room.jpg']):
            print(sample.pred_instances.bboxes, sample.pred_instances.scores)

    Args:
        config: A config, or the path of one; its test pipeline prepares the pictures.
        checkpoint: Path of trained weights, or ``'none'`` for random ones.
        device: As torch names it; the fastest there is, if None.
        score_thr: Detections that score less are left out.
        batch_size: Pictures that go through the network at once.
        seed: Of random weights.

    Attributes:
        model: The network, in evaluation mode.
        classes: Names of the labels: the checkpoint's, else the config's.

    Raises:
        ConfigError: The config has no test pipeline, or a device is unknown.
        CheckpointError: The weights cannot be read, or belong to another config.
    """

    def __init__(
        self,
        config: Config | Path | str,
        checkpoint: Path | str,
        device: str | None = None,
        score_thr: float = 0.0,
        batch_size: int = 1,
        seed: int = 0,
    ) -> None:
        self.config = config if isinstance(config, Config) else load(config)
        self.score_thr = score_thr
        self.batch_size = batch_size
        init_default_scope(self.config.get('default_scope', 'mmdet'))
        known = {} if str(checkpoint) == NO_CHECKPOINT else load_weights_only(checkpoint)
        self.model = _build(self.config, known, seed).to(_device(device)).eval()
        self.classes = _class_names(self.config, known, self.model)
        self._prepare = test_pipeline(self.config)

    def __call__(self, images: Picture | Sequence[Picture]) -> list[DetDataSample]:
        """Find the objects on some pictures.

        Args:
            images: One picture or several: a path, or RGB pixels (H, W, 3) of 8 bits.

        Returns:
            One sample a picture, in their order, on the CPU; ``pred_instances`` has ``bboxes``
            (N, 4) xyxy in pixels of the picture and clipped to it (the evaluation, as the
            reference's, does not clip), ``scores`` (N,) and ``labels`` (N,).

        Raises:
            DatasetError: A file cannot be read.
        """
        several: list[Any] = list(images) if isinstance(images, (list, tuple)) else [images]
        batches = (
            several[start : start + self.batch_size]
            for start in range(0, len(several), self.batch_size)
        )
        return [sample for batch in batches for sample in self._predict(batch)]

    @torch.no_grad()
    def _predict(self, batch: Sequence[Picture]) -> Iterator[DetDataSample]:
        """Yield the samples of one batch."""
        prepared = [self._prepare(_as_results(picture)) for picture in batch]
        samples = self.model.test_step(
            {key: [one[key] for one in prepared] for key in ('inputs', 'data_samples')}
        )
        for sample in samples:
            found = sample.pred_instances
            found.bboxes = clip_boxes(found.bboxes, sample.ori_shape)
            is_inside = (found.bboxes[:, 2:] > found.bboxes[:, :2]).all(dim=1)
            sample.pred_instances = found[is_inside & (found.scores >= self.score_thr)]
            yield sample.cpu()


def _device(name: str | None) -> torch.device:
    """Return a device that is there."""
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


def test_pipeline(config: Config) -> Compose:
    """Return the config's test pipeline for pictures that are already read."""
    pipeline = Compose(
        [
            step
            for step in get_test_pipeline_cfg(config)
            if not any(word in str(step.type) for word in ('LoadImage', 'LoadAnnotations'))
        ]
    )
    sizes = [dataset.image_size for dataset in _datasets(config) if 'image_size' in dataset]
    for transform in pipeline.transforms:
        if sizes and hasattr(transform, 'image_size'):
            transform.image_size = sizes[0]
    return pipeline


def _as_results(picture: Picture) -> dict[str, Any]:
    """Return what mmdet's LoadImageFromFile would: BGR pixels, since pipelines count on it."""
    pixels = picture if isinstance(picture, np.ndarray) else read_image(picture)
    size = pixels.shape[:2]
    return {
        'img': np.ascontiguousarray(pixels[..., ::-1]),
        'img_path': None if isinstance(picture, np.ndarray) else str(picture),
        'img_id': 0,
        'img_shape': size,
        'ori_shape': size,
    }


def _class_names(
    config: Config, checkpoint: Mapping[str, Any], model: BaseModel
) -> tuple[str, ...]:
    """Return the name of each label."""
    names = classes_of(checkpoint) or _config_classes(config)
    count = num_classes_of(model) or len(names)
    if len(names) == count:
        return names
    print_log(
        f'{count} classes, but names for {len(names)}: labels are shown as numbers; '
        f"the data set's metainfo=dict(classes=...) names them",
        logger='current',
        level=logging.WARNING,
    )
    return tuple(str(label) for label in range(count))


def _config_classes(config: Config) -> tuple[str, ...]:
    """Return the class names of the data set that the config is tested on."""
    for dataset in _datasets(config):
        classes = dataset.get('metainfo', {}).get('classes')
        classes = classes or getattr(DATASETS.get(dataset.type), 'METAINFO', {}).get('classes')
        if classes:
            return (classes,) if isinstance(classes, str) else tuple(classes)
    return ()


def _datasets(config: Config) -> Iterator[Any]:
    """Yield the config's test data set, then those that it wraps, outermost first."""
    dataset = config.test_dataloader.dataset
    while dataset:
        yield dataset
        dataset = dataset.get('dataset') or next(iter(dataset.get('datasets', ())), None)
