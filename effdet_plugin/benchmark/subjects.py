"""The models of a measurement, each with images as it takes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModel
from torch import Tensor

from effdet_plugin.benchmark.settings import Settings
from effdet_plugin.demo import scene
from effdet_plugin.export.runtime import Runtime, is_runtime_file, load_runtime
from effdet_plugin.files import RGBImage, write_image
from effdet_plugin.inference import Detector
from effdet_plugin.inference.sources import find_images
from effdet_plugin.trained_model import TrainedModel, device_of, load_trained

NUM_SCENES = 8


@dataclass
class Subject:
    """A model that is measured.

    Attributes:
        label: For the table: the file's name; of random weights the config's.
        trained: A checkpoint's network; None for an exported file.
        runtime: The exported file.
        size: (height, width) of the network input.
        inputs: Normalised images ``(B, 3, H, W)`` on the device, the largest batch.
        key: Equal for models that should compute the same.
    """

    label: str
    trained: TrainedModel | None
    runtime: Runtime | None
    size: tuple[int, int]
    inputs: Tensor
    key: tuple[Any, ...]


def image_files(settings: Settings, folder: Path) -> list[Path]:
    """Return the image files that were given, or write rendered scenes into a folder.

    Raises:
        DatasetError: A given file is missing.
    """
    if settings.images:
        return [path for source in settings.images for path in find_images(source)]
    files = [folder / f'scene_{index}.jpg' for index in range(NUM_SCENES)]
    for index, file in enumerate(files):
        write_image(file, scene(0, 'val', index)[0])
    return files


def subject(model: str, settings: Settings, images: Sequence[RGBImage], batch: int) -> Subject:
    """Load a model and prepare images for it, as its test pipeline does.

    Args:
        model: Checkpoint, exported file or ``'none'``.
        settings: Of the measurement.
        images: RGB pixels; repeated to fill the batch.
        batch: The largest one.

    Raises:
        UserError: The model cannot be loaded.
    """
    device = device_of(settings.device)
    detector = make_detector(model, settings, batch)
    inputs = _prepared(detector, [images[i % len(images)] for i in range(batch)])
    if is_runtime_file(model):
        runtime = load_runtime(model, device.type, settings.threads)
        known = runtime.metadata
        size = known.image_size or (inputs.shape[-2], inputs.shape[-1])
        key = (known.checkpoint_sha256, tuple(size), len(known.classes))
        return Subject(Path(model).name, None, runtime, size, inputs, key)
    trained = load_trained(
        settings.config, model, device, image_size=settings.image_size, options=settings.options
    )
    size = (inputs.shape[-2], inputs.shape[-1])
    key = (trained.checkpoint_hash or '', size, len(trained.classes))
    return Subject(label_of(model, settings), trained, None, size, inputs, key)


def label_of(model: str, settings: Settings) -> str:
    """Return a short name of a model."""
    return Path(settings.config or model).stem if model == 'none' else Path(model).name


def make_detector(
    model: str, settings: Settings, batch: int, fast: bool = False, nms: str | None = None
) -> Detector:
    """Make a detector from images to detections.

    Args:
        model: Checkpoint, exported file or ``'none'``.
        settings: Of the measurement.
        batch: Number of images per call.
        fast: Folded and channels_last.
        nms: ``'hard'`` or ``'soft'``; None: the model's.
    """
    return Detector(
        settings.config,
        model,
        settings.device,
        batch_size=batch,
        image_size=settings.image_size,
        options=settings.options,
        fast=fast,
        nms=nms,
        threads=settings.threads,
    )


def _prepared(detector: Detector, images: list[RGBImage]) -> Tensor:
    """Return what a detector's network gets for images."""
    caught: list[Tensor] = []

    def catch(module: BaseModel, arguments: Any, found: dict[str, Any]) -> None:
        inputs = found['inputs']
        # Images as they are, of a file with uint8 input, may have several sizes; only one is used.
        caught.append(inputs if isinstance(inputs, Tensor) else torch.stack(list(inputs)[:1]))

    hook = detector.model.data_preprocessor.register_forward_hook(catch)
    detector(images)
    hook.remove()
    return caught[0]


def as_file_takes(
    inputs: Tensor, images: Sequence[RGBImage], runtime: Runtime, batch: int
) -> np.ndarray[Any, Any]:
    """Return a batch as an exported file takes it; uint8 files get the first image repeatedly."""
    if runtime.metadata.input == 'uint8':
        return np.stack([images[0]] * batch)
    return np.ascontiguousarray(inputs[:batch].float().cpu().numpy())
