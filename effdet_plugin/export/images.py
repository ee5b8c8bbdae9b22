"""Images to check and to calibrate a file with, prepared as the config's test pipeline does."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope

from effdet_plugin.config.dataset_nodes import dataset_nodes, source_nodes
from effdet_plugin.datasets.transforms import LetterBox
from effdet_plugin.errors import ConfigError, DatasetError
from effdet_plugin.export.runtime import Array
from effdet_plugin.files import RGBImage
from effdet_plugin.images import read_image

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')


def letterbox_of(config: Config) -> dict[str, Any]:
    """Return the `LetterBox` of a config's test pipeline, as a config node.

    Raises:
        ConfigError: The pipeline has none: a file could not say how to prepare images.
    """
    nodes = [node for node in dataset_nodes(config.test_dataloader.dataset) if node.get('pipeline')]
    for step in nodes[-1]['pipeline'] if nodes else ():
        kind = TRANSFORMS.get(step['type']) if isinstance(step['type'], str) else step['type']
        if kind is LetterBox:
            return dict(step)
    raise ConfigError(
        'test_dataloader.dataset.pipeline: has no LetterBox, the preparation that an exported file '
        'can describe'
    )


class Preparation:
    """Resizing and normalisation of a detector, from pixels to the network's input.

    Args:
        model: Its data preprocessor has mean, standard deviation and padding.
        size: (height, width) of the network input.
        resize_dtype: See `LetterBox`.
        resize_mode: Likewise.
    """

    def __init__(
        self,
        model: BaseModel,
        size: tuple[int, int],
        resize_dtype: str,
        resize_mode: str = 'letterbox',
    ) -> None:
        self.resize = LetterBox(size, resize_dtype, resize_mode)
        self.preprocessor = model.data_preprocessor

    @torch.no_grad()
    def __call__(self, image: RGBImage) -> Array:
        """Pixels ``(h, w, 3)`` RGB uint8 -> ``(3, H, W)`` float32."""
        results = self.resize.transform({'img': image})
        pixels = torch.from_numpy(results['img']).permute(2, 0, 1)[None]
        valid = [tuple(results['img_shape'])]
        normalised: torch.Tensor = self.preprocessor._normalize(
            pixels.to(self.preprocessor.mean.device), valid
        )
        return normalised[0].float().cpu().numpy()


def images_of(
    config: Config,
    folder: Path | str | None,
    count: int,
    split: str,
    tell: Callable[[str], None] = lambda _: None,
) -> list[RGBImage]:
    """Return images: of a folder, else of the config's data, else drawn ones.

    Args:
        config: Complete.
        folder: Of images; None for the config's data.
        count: How many, at most.
        split: ``'train'`` or ``'test'``, of the config's data.
        tell: Gets a line where images are drawn.

    Raises:
        DatasetError: There is no such folder, or it has no images.
    """
    paths = images_in(Path(folder)) if folder is not None else list(paths_of(config, split))
    found = [read_image(path) for path in _spread(paths, count)]
    if not found:
        tell('checked with drawn images: the data is not known here (--calib DIR: your images)')
    return found or [drawn(seed) for seed in range(count)]


def images_in(folder: Path) -> list[Path]:
    """Return the images of a folder and those below it, sorted.

    Raises:
        DatasetError: It is no folder, or has none.
    """
    if not folder.is_dir():
        raise DatasetError(f'{folder}: no such folder; give one of images')
    found = sorted(p for p in folder.rglob('*') if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise DatasetError(f'{folder}: no images in this folder, nor below it')
    return found


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    """Take some of a list, evenly over it: neighbours are often of one scene."""
    step = max(1, len(paths) // count)
    return list(paths[::step][:count])


def paths_of(config: Config, split: str) -> Iterator[Path]:
    """Yield the images of a split that exist; nothing where the data is not here."""
    loader = config.get(f'{split}_dataloader') or {}
    init_default_scope(config.get('default_scope', 'mmdet'))
    for node in source_nodes(loader.get('dataset')):
        if not node.get('ann_file'):
            continue
        try:
            source = DATASETS.build({**node, 'pipeline': [], 'lazy_init': False})
        except (OSError, KeyError, TypeError, ValueError, DatasetError):
            continue  # a config is often used where its data is not
        for index in range(len(source)):
            path = Path(source.get_data_info(index)['img_path'])
            if path.is_file():
                yield path


def drawn(seed: int, size: tuple[int, int] = (480, 640)) -> RGBImage:
    """Draw shapes on a textured ground, for want of photographs."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(60, 190, (6, 8, 3)).astype(np.float32)
    image = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    image += rng.normal(0, 6, image.shape).astype(np.float32)
    for _ in range(12):
        x, y = int(rng.integers(size[1])), int(rng.integers(size[0]))
        radius, angle = int(rng.integers(12, 90)), float(rng.uniform(0, 360))
        colour = tuple(float(c) for c in rng.uniform(0, 255, 3))
        axes = (radius, int(radius * rng.uniform(0.4, 1)))
        cv2.ellipse(image, (x, y), axes, angle, 0, 360, colour, int(rng.choice([-1, 4])))
    return np.asarray(image.clip(0, 255), np.uint8)
