"""Move images to the device as uint8, normalise them there, then set their padding.

Source: google/automl efficientdet/dataloader.py, which pads after normalisation.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.utils.misc import samplelist_boxtype2tensor
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class EfficientDetDataPreprocessor(DetDataPreprocessor):
    """Normalise a padded batch in one step; the padding becomes exactly ``pad_value``.

    mmdet's own preprocessor works image by image. Here the images of a batch usually have one size
    already (from ``LetterBox`` or ``ScaleJitterCrop``), each with its valid area ``img_shape`` at
    the top left. Images of several sizes are padded to the largest.

    Args:
        mean: of each channel, RGB, in 0..255.
        std: of each channel.
        pad_value: value of the padding after normalisation: 0, the mean colour; -1 for the AdvProp
            models, whose images are padded before scaling.
        non_blocking: copy to the device asynchronously.
    """

    def __init__(
        self,
        mean: Sequence[float] = (123.675, 116.28, 103.53),
        std: Sequence[float] = (58.395, 57.12, 57.375),
        pad_value: float = 0.0,
        non_blocking: bool = True,
    ) -> None:
        super().__init__(mean=mean, std=std, pad_value=pad_value, non_blocking=non_blocking)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Move a batch to the device, stack it, normalise it and set its padding.

        Args:
            data: a collated batch: ``inputs`` uint8 or float RGB, ``(B, 3, H, W)`` or a list of
                ``(3, h, w)``, and optionally ``data_samples``.
            training: not used; both modes are equal.

        Returns:
            ``inputs`` float32 ``(B, 3, H, W)``, normalised, and ``data_samples``, with
            ``batch_input_shape`` and ``pad_shape`` set in their metainfo.
        """
        data = self.cast_data(data)
        inputs, samples = data['inputs'], data.get('data_samples')
        images = _stack(inputs) if isinstance(inputs, (list, tuple)) else inputs
        shape = (images.shape[-2], images.shape[-1])
        valid = [tuple(x.shape[-2:]) for x in inputs]
        if samples is not None:
            samplelist_boxtype2tensor(samples)  # most of mmdet's heads take tensors only
            valid = [_valid_area(s, v) for s, v in zip(samples, valid, strict=True)]
            for sample in samples:
                sample.set_metainfo(dict(batch_input_shape=shape, pad_shape=shape))
        return dict(inputs=self._normalize(images, valid), data_samples=samples)

    def _normalize(self, images: Tensor, valid: list[tuple[int, ...]]) -> Tensor:
        # uint8 until here: a quarter of the bytes of float32 travel to the device.
        images = (images.float() - self.mean) / self.std
        height, width = images.shape[-2:]
        if all(area == (height, width) for area in valid):
            return images
        # One mask for the batch, instead of a loop over its images.
        sizes = torch.tensor(valid).to(images.device, non_blocking=True)  # (B, 2)
        rows = torch.arange(height, device=images.device) < sizes[:, :1]  # (B, H)
        cols = torch.arange(width, device=images.device) < sizes[:, 1:]  # (B, W)
        inside = (rows[:, :, None] & cols[:, None, :]).unsqueeze(1)
        return torch.where(inside, images, self.pad_value)


def _valid_area(sample: Any, whole: tuple[int, ...]) -> tuple[int, ...]:
    """Size (height, width) of a sample's image inside its tensor, which has the size ``whole``."""
    height, width = sample.metainfo.get('img_shape', whole)[:2]
    return min(int(height), whole[0]), min(int(width), whole[1])


def _stack(images: Sequence[Tensor]) -> Tensor:
    """Pad ``(3, h, w)`` images at the right and bottom to the largest and stack them."""
    height, width = (max(x.shape[axis] for x in images) for axis in (-2, -1))
    return torch.stack(
        [F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2])) for x in images]
    )
