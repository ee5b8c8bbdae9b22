"""Image transforms of the reference that mmdet cannot express: exact sizes, top-left placement.

Each has one size key, ``image_size = (height, width)``; where it is None,
:class:`~effdet_plugin.datasets.EfficientDetDataset` sets it. ``resize_mode`` says how an image
meets that size. All modes map boxes by one factor per axis, from the upper left corner:

- ``'letterbox'``: the reference; the same factor for both axes, the rest is padding.
- ``'stretch'``: the whole input, by ``cv2.resize``; TensorFlow Lite's Task library.
- ``'stretch_mediapipe'``: the whole input, sampled at ``x * W / width`` without the half pixel's
  shift; MediaPipe Tasks (google-ai-edge/mediapipe, calculators/tensor/
  image_to_tensor_converter_opencv.cc). MediaPipe, too, maps boxes back by the factors alone.
"""

from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes, get_box_tensor

from effdet_plugin.errors import ConfigError
from effdet_plugin.images import check_resize_mode, resize, resize_window

ImageSize = tuple[int, int]


@TRANSFORMS.register_module()
class ToRGB(BaseTransform):
    """BGR (what OpenCV and mmdet's loaders give) to RGB, for images ``(H, W, 3)``."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Exchange the channels of ``results['img']``."""
        image = results['img']
        if image.ndim == 3 and image.shape[2] == 3 and image.dtype in (np.uint8, np.float32):
            results['img'] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # 30 times as fast as numpy
        else:
            results['img'] = np.ascontiguousarray(image[..., ::-1])
        return results


class SizedTransform(BaseTransform):
    """A transform with an ``image_size``.

    Args:
        image_size: (height, width) of the network input. None: whoever builds the pipeline sets it,
            as :class:`~effdet_plugin.datasets.EfficientDetDataset` does.
        resize_dtype: ``'uint8'`` rounds the resized image to whole grey levels (small to copy to
            the device); ``'float32'`` does not (the reference; its images differ by half a level).
            The runtimes that stretch round, so that stretched images are rounded in both.
        resize_mode: ``'letterbox'``, ``'stretch'`` or ``'stretch_mediapipe'``, see above.

    Raises:
        ConfigError: An ``image_size`` that is none, another ``resize_dtype`` or ``resize_mode``; on
            use, an ``image_size`` that nobody has set.
    """

    def __init__(
        self,
        image_size: ImageSize | None = None,
        resize_dtype: str = 'uint8',
        resize_mode: str = 'letterbox',
    ) -> None:
        if resize_dtype not in ('uint8', 'float32'):
            raise ConfigError(f"resize_dtype={resize_dtype!r}; choose 'uint8' or 'float32'")
        check_resize_mode(resize_mode)
        match image_size:
            case None:
                self.image_size: ImageSize | None = None
            case (int(height), int(width)) if height > 0 and width > 0:
                self.image_size = int(height), int(width)  # True is an int, too
            case _:
                raise ConfigError(f'image_size={image_size!r}: give (height, width) in pixels')
        self.resize_dtype = resize_dtype
        self.resize_mode = resize_mode

    def size(self) -> ImageSize:
        """Return the network's input size, (height, width)."""
        if self.image_size is None:
            raise ConfigError(
                f'{type(self).__name__}: no image_size; write it into this step of the pipeline, '
                'or into an EfficientDetDataset around the dataset'
            )
        return self.image_size

    def resize(self, image: np.ndarray, height: int, width: int) -> np.ndarray:
        """Bilinear without antialiasing, as TensorFlow's ``resize``, OpenCV's or MediaPipe's."""
        if self.resize_mode == 'letterbox':
            image = image.astype(self.resize_dtype, copy=False)
        return resize(image, height, width, self.resize_mode).astype(self.resize_dtype, copy=False)

    def window(self, image: np.ndarray, size: ImageSize, rows: slice, columns: slice) -> np.ndarray:
        """Return a window of what `resize` gives, the same bits for less work."""
        if self.resize_mode == 'letterbox':
            image = image.astype(self.resize_dtype, copy=False)
        window = resize_window(image, size, self.resize_mode, rows, columns)
        return window.astype(self.resize_dtype, copy=False)

    def fitted(self, shape: ImageSize, size: ImageSize) -> tuple[ImageSize, tuple[float, float]]:
        """How large an image becomes in an input, and by which factors.

        Args:
            shape: (height, width) of the image.
            size: (height, width) of the input.

        Returns:
            (height, width) in pixels, and the factors (horizontal, vertical) of its boxes.
        """
        if self.resize_mode == 'letterbox':
            scale = fit_scale(shape, size)
            return scaled_shape(shape, scale), (float(scale), float(scale))
        return size, (size[1] / shape[1], size[0] / shape[0])


def _on_canvas(image: np.ndarray, size: ImageSize) -> np.ndarray:
    """Image at the top left of a canvas; the data preprocessor sets the padding's value."""
    canvas = np.zeros((*size, image.shape[2]), dtype=image.dtype)
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas


def in_planes(canvas: np.ndarray) -> np.ndarray:
    """The same image ``(H, W, C)``; each channel is a plane in memory, as networks take it.

    mmdet's ``PackDetInputs`` then copies nothing.
    """
    planes = np.empty((canvas.shape[2], *canvas.shape[:2]), dtype=canvas.dtype)
    # Of the whole canvas: into parts of the planes it is four times as slow.
    cv2.split(canvas, list(planes))
    return planes.transpose(1, 2, 0)


def fit_scale(image_shape: ImageSize, size: ImageSize) -> np.float32:
    """Largest scale at which an image fits, in float32 (97x131 into 256x384 gives 255x345)."""
    ratios = np.asarray(size, dtype=np.float32) / np.asarray(image_shape, dtype=np.float32)
    return np.minimum(ratios[0], ratios[1])


def truncated(length: int, factor: float | np.float32) -> int:
    """Whole pixels of a multiple of a length, in float32 (10 times 0.7 gives 7, as TensorFlow)."""
    return int(np.float32(length) * np.float32(factor))


def scaled_shape(image_shape: ImageSize, scale: np.float32) -> ImageSize:
    """Truncated (height, width) of a scaled image, at least one pixel."""
    height, width = (truncated(side, scale) for side in image_shape)
    return max(height, 1), max(width, 1)


@TRANSFORMS.register_module()
class LetterBox(SizedTransform):
    """The reference's inference: fit the image into ``image_size`` at the top left.

    With another ``resize_mode`` the image is stretched to all of ``image_size``. Sets ``img``
    ``(H, W, 3)``, ``img_shape`` (its valid area), ``pad_shape``, ``scale_factor`` (horizontal,
    vertical) and ``resize_mode``, and scales ``gt_bboxes`` if there.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize and pad."""
        size = self.size()
        shape = results['img'].shape[:2]
        valid, factor = self.fitted(shape, size)
        results['img'] = _on_canvas(self.resize(results['img'], *valid), size)
        results.update(img_shape=valid, pad_shape=size, scale_factor=factor)
        results.update(keep_ratio=self.resize_mode == 'letterbox', scale=size[::-1])
        results['resize_mode'] = self.resize_mode
        if results.get('gt_bboxes') is not None:
            boxes = get_box_tensor(results['gt_bboxes'])
            boxes = boxes * boxes.new_tensor(factor).repeat(2)
            results['gt_bboxes'] = HorizontalBoxes(boxes)
        return results


@TRANSFORMS.register_module()
class ScaleJitterCrop(SizedTransform):
    """The reference's training crop: random scale of the letter-boxed image, random crop, padding.

    Scale ``s`` is uniform in ``ratio_range``; the image is fitted into ``s * image_size``, and
    where it is larger than ``image_size`` a window at a random offset is taken. Boxes are clipped
    to ``[0, size - 1]`` (not ``size``) and dropped when nothing is left, with their other keys.

    With a ``resize_mode`` that stretches, the image is stretched to ``s * image_size`` instead: at
    ``s = 1`` it is what inference sees, and an object's aspect ratio is at every scale the one that
    it has there. Only the share of padding differs: none from ``s = 1`` on.

    Args:
        image_size: see :class:`SizedTransform`.
        ratio_range: lowest and highest scale, 0.1 to 2.0 in the reference.
        min_side: boxes with a side of at most this many pixels after clipping are dropped; 0 in the
            reference.
        resize_dtype: see :class:`SizedTransform`.
        resize_mode: see :class:`SizedTransform`.
    """

    def __init__(
        self,
        image_size: ImageSize | None = None,
        ratio_range: tuple[float, float] = (0.1, 2.0),
        min_side: float = 0.0,
        resize_dtype: str = 'uint8',
        resize_mode: str = 'letterbox',
    ) -> None:
        super().__init__(image_size, resize_dtype, resize_mode)
        self.ratio_range = ratio_range
        self.min_side = min_side

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Draw scale and offsets from numpy's global generator, then crop.

        A scale that was drawn before reading (``jitter_scale``) is taken.
        """
        return self.crop(results, *self.draw(results))

    def draw(self, results: dict[str, Any]) -> tuple[float, tuple[float, float]]:
        """Return the scale and the offsets (vertical, horizontal) of an image."""
        scale = results.pop('jitter_scale', None)
        scale = self.draw_scale() if scale is None else scale
        offsets = np.random.uniform(0, 1, size=2)
        return scale, (float(offsets[0]), float(offsets[1]))

    def draw_scale(self) -> float:
        """Draw a scale from numpy's global generator."""
        return float(np.random.uniform(*self.ratio_range))

    def crop(
        self, results: dict[str, Any], scale: float, offsets: tuple[float, float]
    ) -> dict[str, Any]:
        """The crop of given draws.

        Args:
            results: mmdet's, with ``img`` and perhaps ``gt_bboxes``, ``gt_bboxes_labels``,
                ``gt_ignore_flags``.
            scale: of the target size.
            offsets: in [0, 1), of the free way (vertical, horizontal).
        """
        size = self.size()
        image = self.cut(results, scale, offsets, size)
        results.update(img=in_planes(_on_canvas(image, size)))
        results.update(img_shape=image.shape[:2], pad_shape=size)
        return results

    def cut(
        self,
        results: dict[str, Any],
        scale: float,
        offsets: tuple[float, float],
        size: ImageSize,
    ) -> np.ndarray:
        """Return the window ``(H, W, 3)`` of given draws, and move the boxes into it.

        Args:
            results: see `crop`.
            scale: likewise.
            offsets: likewise.
            size: (height, width) that the window has at most.
        """
        shape = results['img'].shape[:2]
        target = scaled_shape(self.size(), np.float32(scale))
        scaled, _ = self.fitted(shape, target)
        free = [max(0, scaled[axis] - size[axis]) for axis in (0, 1)]
        top, left = (truncated(way, share) for way, share in zip(free, offsets, strict=True))
        rows = slice(top, min(top + size[0], scaled[0]))
        columns = slice(left, min(left + size[1], scaled[1]))
        image = self.window(results['img'], scaled, rows, columns)
        factor = (scaled[1] / shape[1], scaled[0] / shape[0])
        reduction = results.pop('reduction', 1)  # of `ImageReader`
        of_file = (factor[0] / reduction, factor[1] / reduction)
        results.update(scale_factor=of_file, resize_mode=self.resize_mode)
        if results.get('gt_bboxes') is not None:
            self._move_boxes(results, factor, (left, top), size)
        return image

    def _move_boxes(
        self,
        results: dict[str, Any],
        factor: tuple[float, float],
        offset: tuple[int, int],
        size: ImageSize,
    ) -> None:
        # numpy: torch takes ten times as long for so few numbers.
        boxes = get_box_tensor(results['gt_bboxes']).numpy()
        factors, offsets, limits = (
            np.array(pair * 2, boxes.dtype) for pair in (factor, offset, (size[1] - 1, size[0] - 1))
        )
        boxes = (boxes * factors - offsets).clip(0, limits)
        keep = ((boxes[:, 2:] - boxes[:, :2]) > self.min_side).all(-1)
        results['gt_bboxes'] = HorizontalBoxes(torch.from_numpy(boxes[keep]), clone=False)
        for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
            if key in results:
                results[key] = results[key][keep]
