"""Mosaics: four images of a training set in one input.

mmdet's ``Mosaic`` makes a canvas of twice the input that another step must shrink and crop, copies
four whole images, and its 2x2 images have no scale or flip of their own; hence a step of our own,
with mmdet's interface of steps that mix images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes, get_box_tensor

from effdet_plugin.datasets.reader import READING_ERRORS, raise_if_unreadable
from effdet_plugin.datasets.transforms import ImageSize, ScaleJitterCrop, in_planes
from effdet_plugin.errors import ConfigError

GREY = 114  # mean of the means of ImageNet's channels, as in YOLOX (Megvii-BaseDetection/YOLOX)
_NOT_MIXED = ('gt_masks', 'gt_seg_map', 'proposals')

Results = dict[str, Any]


@TRANSFORMS.register_module()
class MosaicCrop(ScaleJitterCrop):
    """`ScaleJitterCrop` that puts some images into a mosaic of 2x2 with three others.

    The centre is uniform in the middle half of each axis (google/automl efficientdet/aug/mosaic.py,
    at commit 6a54c87). Each image has its own scale and window, and meets the others at the centre;
    what it leaves of its tile is grey. Boxes are clipped to their tile, and dropped by the rule of
    `ScaleJitterCrop`.

    It needs other images, which have gone through the steps before it: from
    :class:`~effdet_plugin.datasets.EfficientDetDataset`, whose ``mosaic`` makes this step of the
    pipeline's `ScaleJitterCrop`, or as ``mix_results`` from mmdet's ``MultiImageMixDataset``. The
    arguments that are not named here are those of `ScaleJitterCrop`.

    Args:
        prob: Share of the images that become a mosaic.
        scale_share: Lowest and highest share of the scale that an image has alone: at 0.5 a whole
            image fits a tile of half the input, at 1 its objects are as large as alone.

    Raises:
        ConfigError: A ``prob`` outside 0 to 1, a ``scale_share`` outside 0 to 1; on use, no other
            images, or masks, which are not moved.
    """

    def __init__(
        self,
        prob: float = 1.0,
        scale_share: tuple[float, float] = (0.5, 1.0),
        image_size: ImageSize | None = None,
        ratio_range: tuple[float, float] = (0.1, 2.0),
        min_side: float = 0.0,
        resize_dtype: str = 'uint8',
        resize_mode: str = 'letterbox',
    ) -> None:
        super().__init__(image_size, ratio_range, min_side, resize_dtype, resize_mode)
        self.prob, self.scale_share = check_mosaic(prob), scale_share
        # Above 1, an image that was decoded at a part of its size would be enlarged.
        if not 0 < scale_share[0] <= scale_share[1] <= 1:
            raise ConfigError(f'scale_share={scale_share}: give two shares above 0, up to 1')
        self.source: OtherImages | None = None
        self.is_on = True

    @classmethod
    def of(cls, crop: ScaleJitterCrop, prob: float) -> 'MosaicCrop':
        """Return the mosaics of a crop's settings."""
        return cls(
            prob,
            image_size=crop.image_size,
            ratio_range=crop.ratio_range,
            min_side=crop.min_side,
            resize_dtype=crop.resize_dtype,
            resize_mode=crop.resize_mode,
        )

    def get_indexes(self, dataset: Any) -> list[int]:
        """Draw the three other images from numpy's global generator; none where it is no mosaic."""
        if np.random.random() >= self.prob:
            return []
        return np.random.randint(len(dataset), size=3).tolist()

    def transform(self, results: Results) -> Results:
        """Make a mosaic with the other images, or the crop of this one where there are none."""
        others = results.pop('mix_results', None)
        if others is None:
            others = self._others()
        if not others:
            return super().transform(results)
        return self.mosaic([results, *others])

    def _others(self) -> list[Results]:
        if self.source is None:
            raise ConfigError(
                'MosaicCrop: no other images; write ScaleJitterCrop and set '
                'EfficientDetDataset.mosaic, or put MultiImageMixDataset around the dataset'
            )
        return self.source.read(self.get_indexes(self.source.dataset)) if self.is_on else []

    def mosaic(self, images: Sequence[Results]) -> Results:
        """Put four images into one, in the first one's results.

        Args:
            images: mmdet's results: upper left, upper right, lower left, lower right.
        """
        if found := [key for key in _NOT_MIXED if images[0].get(key) is not None]:
            raise ConfigError(f'mosaic: {found[0]} cannot be put into a mosaic; leave mosaic out')
        height, width = size = self.size()
        middle = int(height * np.random.uniform(0.25, 0.75))
        centre = int(width * np.random.uniform(0.25, 0.75))
        channels = images[0]['img'].shape[2]
        canvas = np.full((*size, channels), GREY, self.resize_dtype)
        tiles = [
            (rows, columns)
            for rows in (slice(0, middle), slice(middle, height))
            for columns in (slice(0, centre), slice(centre, width))
        ]
        for results, (rows, columns) in zip(images, tiles, strict=True):
            self._fill(canvas, results, rows, columns)
        joined = images[0]
        joined.update(img=in_planes(canvas), img_shape=size, pad_shape=size)
        if joined.get('gt_bboxes') is not None:
            boxes = torch.cat([get_box_tensor(one['gt_bboxes']) for one in images])
            joined['gt_bboxes'] = HorizontalBoxes(boxes, clone=False)
            for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
                if key in joined:
                    joined[key] = np.concatenate([one[key] for one in images])
        return joined

    def _fill(self, canvas: np.ndarray, results: Results, rows: slice, columns: slice) -> None:
        """Put an image into its tile, against the mosaic's centre, and move its boxes with it."""
        scale, offsets = self.draw(results)
        scale *= np.random.uniform(*self.scale_share)
        tile = rows.stop - rows.start, columns.stop - columns.start
        image = self.cut(results, scale, offsets, tile)
        top = 0 if rows.start else tile[0] - image.shape[0]
        left = (0 if columns.start else tile[1] - image.shape[1]) + columns.start
        top += rows.start
        canvas[top : top + image.shape[0], left : left + image.shape[1]] = image
        if results.get('gt_bboxes') is not None:
            results['gt_bboxes'].translate_((left, top))


class OtherImages:
    """Reads images of a dataset by the steps that stand before a `MosaicCrop`.

    Args:
        dataset: A built dataset of mmdet or wrapper of some.
        steps: Those of the pipeline, which may change later.
        crop: The step of the pipeline before which reading ends.
    """

    def __init__(self, dataset: Any, steps: list[Any], crop: MosaicCrop) -> None:
        self.dataset, self.steps, self.crop = dataset, steps, crop

    def read(self, indexes: Sequence[int]) -> list[Results]:
        """Read images; none of them where a step leaves one out."""
        read = [self._read(index) for index in indexes]
        found = [results for results in read if results is not None]
        return found if len(found) == len(read) else []

    def _read(self, index: int) -> Results | None:
        results: Results | None = self.dataset.get_data_info(index)
        path = (results or {}).get('img_path', f'sample {index}')
        try:
            for step in self.steps[: self.steps.index(self.crop)]:
                results = None if results is None else step(results)
        except READING_ERRORS as error:
            raise_if_unreadable(path, error)
            raise
        return results


def check_mosaic(prob: Any, epochs: Any = None) -> float:
    """Return a share of images.

    Raises:
        ConfigError: It is none, or the number of epochs is none.
    """
    if isinstance(prob, bool) or not isinstance(prob, (int, float)) or not 0 <= prob <= 1:
        raise ConfigError(f'mosaic={prob!r}: give the share of images, from 0 to 1')
    if epochs is not None and (type(epochs) is not int or epochs < 0):
        raise ConfigError(f'mosaic_epochs={epochs!r}: give a number of epochs, or None for all')
    return prob


def set_mosaic(dataset: Any, steps: list[Any], prob: float) -> list[MosaicCrop]:
    """Let a built pipeline make mosaics of the images of a dataset.

    Args:
        dataset: Where the other images come from.
        steps: Of the pipeline; changed in place.
        prob: Share of the images that become a mosaic; 0: as the steps say.

    Returns:
        The steps that make them.

    Raises:
        ConfigError: The pipeline has not one `ScaleJitterCrop`.
    """
    places = [i for i, step in enumerate(steps) if isinstance(step, ScaleJitterCrop)]
    if prob and len(places) != 1:
        raise ConfigError(
            f'mosaic needs a pipeline with one ScaleJitterCrop; this one has {len(places)} '
            '(ratio_range=(1, 1) is LetterBox)'
        )
    for place in places if prob else ():
        if not isinstance(steps[place], MosaicCrop):
            steps[place] = MosaicCrop.of(steps[place], prob)
        steps[place].prob = prob
    found = [step for step in steps if isinstance(step, MosaicCrop)]
    for crop in found:
        crop.source = OtherImages(dataset, steps, crop)
    return found
