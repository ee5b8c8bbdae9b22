"""A model as one callable: images in, mmdet's data samples out."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from numbers import Integral
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from PIL import Image as Pillow

from effdet_plugin.config import Options, size_pipelines
from effdet_plugin.errors import ConfigError, DatasetError
from effdet_plugin.export.runtime import SUFFIXES
from effdet_plugin.images import read_image
from effdet_plugin.inference.inputs import ORDERS, Image, as_image, no_image
from effdet_plugin.inference.runtime_model import NMS, load_file
from effdet_plugin.inference.selection import Selection
from effdet_plugin.inference.tiles import Tiles, apply_views
from effdet_plugin.inference.tta import TTA, tta_of_file
from effdet_plugin.ops.boxes import clip_boxes
from effdet_plugin.shipped_configs import is_config
from effdet_plugin.trained_model import folded, load_trained, set_nms

PRECISIONS = {'fp32': None, 'fp16': torch.float16, 'bf16': torch.bfloat16}


class Detector:
    """Detect objects in images.

        detector = Detector('best.pth')  # or Detector('model.onnx'), Detector('d0_coco', 'd0.pth')
        for sample in detector(['street.jpg', 'room.jpg']):
            print(sample.pred_instances.bboxes, sample.pred_instances.scores)

    Args:
        config: A config, its path or the name of one of ours. Left out or None, the one in the
            checkpoint or exported file is used, of which no code is run (see
            `effdet_plugin.config.embedded`). Its test pipeline prepares the images.
        checkpoint: Path of trained weights or of an exported file (``.onnx``, ``.xml``, ``.pt2``),
            or ``'none'`` for random weights.
        device: torch device; None takes the fastest one available, and for a file the CPU.
        score_thr: Detections with a lower score are dropped.
        batch_size: Number of images, or of tiles, per forward pass.
        seed: Seed of random weights.
        tta: Test-time augmentation, as in the evaluation; None: each image as it is.
        tiles: Overlapping tiles of large images: `effdet_plugin.inference.Tiles`, or what
            ``--tiles`` takes (``'2x2'``, 640); None: each image in one piece.
        image_size: Replaces the config's; see `effdet_plugin.config.parse_size`.
        options: See `effdet_plugin.config.merge_options`.
        fast: Fold BN into the convolutions, with memory in channels-last order: the same detections
            up to float rounding (1e-5). Detectors other than ours stay as they are.
        precision: ``'fp32'``, ``'fp16'`` (GPU) or ``'bf16'``, of the network; not of NMS.
        nms: ``'hard'`` or ``'soft'``; None: the config's.
        max_per_img: Number of detections kept per image; None: the config's.
        classes: Names or labels of the classes to keep; None keeps all. The others take none of the
            ``max_per_img`` places, except in exported files with NMS, in which places are taken
            before: export those with more rows.
        channel_order: Of arrays and tensors. Ours is ``'rgb'``, as Pillow, torchvision and our
            configs have it; mmdet's own API takes ``'bgr'``, what `cv2.imread` and a camera of
            OpenCV give.
        threads: Number of threads of an exported file's runtime; None: its default.

    Attributes:
        model: The network, in evaluation mode.
        classes: Name of each label: the checkpoint's, else the config's.

    Raises:
        ConfigError: An argument that cannot be used, a config without a test pipeline, an unknown
            device or class, or what an exported file cannot follow.
        CheckpointError: The weights cannot be read, or belong to another config.
        InstallError: The runtime of an exported file is not installed.
    """

    def __init__(
        self,
        config: Config | Path | str | None = None,
        checkpoint: Path | str | None = None,
        device: str | None = None,
        score_thr: float = 0.0,
        batch_size: int = 1,
        seed: int = 0,
        tta: TTA | None = None,
        tiles: Tiles | str | int | None = None,
        *,
        image_size: str | int | tuple[int, int] | None = None,
        options: Options | None = None,
        fast: bool = False,
        precision: str = 'fp32',
        nms: str | None = None,
        max_per_img: int | None = None,
        classes: Sequence[str | int] | None = None,
        channel_order: str = 'rgb',
        threads: int | None = None,
    ) -> None:
        config, checkpoint = split_model(config, checkpoint)
        # Detections are not selected where nothing is asked for.
        is_asked = bool(score_thr) or classes is not None or max_per_img is not None
        self._selection = Selection(score_thr, classes, max_per_img) if is_asked else None
        _check_choices(batch_size, precision=precision, nms=nms, channel_order=channel_order)
        if str(checkpoint).lower().endswith(tuple(SUFFIXES)):
            if precision != 'fp32':
                raise ConfigError(
                    f'{checkpoint}: its precision is in the file: export the checkpoint with '
                    '--precision fp16'
                )
            trained = load_file(
                Path(checkpoint), config, device, threads=threads, image_size=image_size,
                options=options, nms=nms, max_per_img=max_per_img,
            )  # fmt: skip
            tta = tta_of_file(tta, trained.model.metadata, checkpoint)
        else:
            trained = load_trained(
                config, checkpoint, device, seed, image_size=image_size, options=options
            )
            # Views and tiles are merged by scores and boxes that are not detected in the end.
            is_whole = tta is None and tiles is None
            chosen = self._selection if is_whole else None
            labels = chosen.labels(trained.classes) if chosen else None
            limit = score_thr if is_whole else 0.0
            set_nms(trained, NMS.get(nms or ''), max_per_img, limit, labels)
        self.config, self.model, self.classes = trained.config, trained.model, trained.classes
        self.score_thr, self.batch_size, self.channel_order = score_thr, batch_size, channel_order
        self._labels = self._selection.labels(self.classes) if self._selection else None
        self._dtype = PRECISIONS[precision]
        cfg = copy.deepcopy(self.config)
        size_pipelines(cfg.test_dataloader.dataset)
        if fast:
            self.model = folded(self.model, None if tta else cfg)
        self._network = self.model
        if tta is not None or tiles is not None:
            views = apply_views(cfg, tta, tiles, batch_size) or {}
            self._network = MODELS.build({**views, 'module': self.model})
        self._prepare, self._takes_rgb = _test_pipeline(cfg)
        self._check_precision(precision)

    def __call__(self, images: Image | Iterable[Image]) -> list[DetDataSample]:
        """Detect the objects in one or several images.

        Args:
            images: One image or several; see `effdet_plugin.inference.inputs`: paths, arrays,
                tensors, Pillow images; a batch as one array, a list, a generator.

        Returns:
            One sample per image, in the given order, on the CPU. ``pred_instances`` has ``bboxes``
            ``(N, 4)`` xyxy in pixels of the image, ``scores`` ``(N,)`` and ``labels`` ``(N,)``.
            Boxes are clipped to the image. The evaluation does not clip them, as in google/automl
            efficientdet/tf2/postprocess.py.

        Raises:
            DatasetError: A file cannot be read, or it is unknown what the numbers of an array mean.
        """
        return list(self.stream(images))

    def stream(self, images: Image | Iterable[Image]) -> Iterator[DetDataSample]:
        """Yield a sample for each image, as soon as its batch is full.

        Only one batch is in memory: an endless generator is possible.

        Args:
            images: See `__call__`.
        """
        each = _each(images)
        while batch := list(islice(each, self.batch_size)):
            yield from self._predict(batch)

    @torch.no_grad()
    def _predict(self, batch: Sequence[Image]) -> list[DetDataSample]:
        """Return the samples of one batch."""
        prepared = [self._prepare(self._as_results(image)) for image in batch]
        samples = []
        with self._autocast():
            found_samples = self._network.test_step(pseudo_collate(prepared))
        for sample in found_samples:
            found = sample.pred_instances
            found.bboxes = clip_boxes(found.bboxes.float(), sample.ori_shape)
            is_inside = (found.bboxes[:, 2:] > found.bboxes[:, :2]).all(dim=1)
            found = found[is_inside]
            if self._selection is not None:
                found = self._selection(found, self._labels)
            sample.pred_instances = found
            samples.append(sample.cpu())
        return samples

    def _as_results(self, image: Image) -> dict[str, Any]:
        """Return an image as the steps after the loader of a pipeline expect it."""
        is_path = isinstance(image, str | PathLike)
        # Files do not take the way through `as_image`: it is another file to read.
        pixels = read_image(fspath(image)) if is_path else as_image(image, self.channel_order)  # type: ignore[arg-type]
        size = pixels.shape[:2]
        return {
            'img': np.ascontiguousarray(pixels if self._takes_rgb else pixels[..., ::-1]),
            'img_path': str(image) if is_path else None,
            'img_id': 0,
            'img_shape': size,
            'ori_shape': size,
        }

    def _autocast(self) -> AbstractContextManager[object]:
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(next(self.model.parameters()).device.type, self._dtype)

    def _check_precision(self, precision: str) -> None:
        if self._dtype == torch.float16 and next(self.model.parameters()).device.type == 'cpu':
            raise ConfigError(f'precision {precision} needs a GPU; a CPU has bf16')


def split_model(
    config: Config | Path | str | None, checkpoint: Path | str | None
) -> tuple[Config | Path | str | None, Path | str]:
    """Return config and checkpoint; one argument alone is the checkpoint if it is no config.

    Raises:
        ConfigError: A config alone, none of both, or a config in the place of the checkpoint.
    """
    if checkpoint is None:
        if config is None:
            raise ConfigError('give a checkpoint (.pth) or an exported file')
        if isinstance(config, Config) or is_config(config):
            name = 'a config' if isinstance(config, Config) else f'{config}, which is a config,'
            raise ConfigError(
                f"{name} needs a checkpoint or an exported file after it ('none': random weights)"
            )
        return None, config
    if isinstance(checkpoint, Config) or (not Path(checkpoint).exists() and is_config(checkpoint)):
        raise ConfigError('the checkpoint is a config: give the config first, then the checkpoint')
    if config is not None and not isinstance(config, Config | str | Path):
        raise ConfigError(f'config: a {type(config).__name__}; give a path, a name or a Config')
    return config, checkpoint


def _check_choices(batch_size: Any, **given: str | None) -> None:
    known = {'precision': list(PRECISIONS), 'nms': list(NMS), 'channel_order': list(ORDERS)}
    for name, value in given.items():
        if value is not None and value not in known[name]:
            raise ConfigError(f'{name}={value!r}: choose {" or ".join(known[name])}')
    if not isinstance(batch_size, Integral) or int(batch_size) < 1:
        raise ConfigError(f'batch_size={batch_size!r}: give a whole number, at least 1')


def _each(images: Image | Iterable[Image]) -> Iterator[Image]:
    """Yield images one by one, as they are asked for.

    Args:
        images: One image; an array or tensor of several, ``(B, H, W, 3)`` or ``(B, 3, H, W)``; a
            list, a generator or anything else that can be iterated over.

    Raises:
        DatasetError: It is none of these.
    """
    if isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 4:
        yield from images
    elif isinstance(images, np.ndarray | torch.Tensor | Pillow.Image | PathLike | str):
        yield images
    elif isinstance(images, Iterable) and not isinstance(images, bytes | bytearray | dict):
        yield from images
    else:
        raise DatasetError(no_image(images))


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
    """Drop the steps that read files, also inside ``TestTimeAug`` and ``TileViews``."""
    kept = []
    for number, step in enumerate(steps):
        if not isinstance(step, dict) or 'type' not in step:
            raise ConfigError(f'test pipeline: step {number} has no type')
        if step['type'] == 'TestTimeAug':
            groups = [_without_loaders(group) for group in step['transforms']]
            kept.append({**step, 'transforms': [group for group in groups if group]})
        elif step['type'] == 'TileViews':
            kept.append({**step, 'transforms': _without_loaders(step['transforms'])})
        elif not any(word in str(step['type']) for word in ('LoadImage', 'LoadAnnotations')):
            kept.append(step)
    return kept
