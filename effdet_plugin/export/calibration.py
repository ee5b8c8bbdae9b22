"""Images from which integer files learn their ranges: of the training data, or of any folder.

Never of the data that a model is evaluated on: ranges fitted to it would flatter the file.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from effdet_plugin.errors import ConfigError, DatasetError
from effdet_plugin.export.images import Preparation, images_in, paths_of
from effdet_plugin.export.runtime import Array
from effdet_plugin.files import RGBImage
from effdet_plugin.images import read_image

COUNT = 200  # by default; more hardly moves the ranges of a trained network


@dataclass(frozen=True)
class CalibrationImages:
    """Images to calibrate with, read while they are iterated over, as often as wanted.

    Attributes:
        paths: Of the images.
        prepare: The model's own test pipeline, from pixels to its input.
    """

    paths: tuple[Path, ...]
    prepare: Preparation

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def __iter__(self) -> Iterator[Array]:
        """Yield ``(3, H, W)`` float32, normalised and padded: the network's input.

        Raises:
            DatasetError: An image cannot be read.
        """
        return (self.prepare(image) for image in self.pixels())

    def pixels(self) -> Iterator[RGBImage]:
        """Yield ``(h, w, 3)`` uint8 RGB of the images' own sizes.

        Raises:
            DatasetError: An image cannot be read.
        """
        return (read_image(path) for path in self.paths)


def calibration_images(
    config: Config,
    prepare: Preparation,
    folder: Path | str | None = None,
    count: int = COUNT,
    seed: int = 0,
) -> CalibrationImages:
    """Choose images to calibrate with.

    Args:
        config: Its training data is used where there is no folder.
        prepare: Of the model and its input size.
        folder: Of images, with all folders below it.
        count: How many, at most; drawn without replacement.
        seed: Of the draw: the same images each time.

    Raises:
        ConfigError: A count below 1.
        DatasetError: There are no images.
    """
    if count < 1:
        raise ConfigError(f'--calib-count {count}: give 1 or more')
    paths = sorted(set(images_in(Path(folder)) if folder else paths_of(config, 'train')))
    if not paths:
        raise DatasetError(
            'train_dataloader: none of its images is here, and int8 is calibrated with images: '
            'give a folder of any like those of the training by --calib DIR'
        )
    chosen = random.Random(seed).sample(paths, min(count, len(paths)))
    return CalibrationImages(tuple(chosen), prepare)
