"""The preparation of a detector inside a graph: pixels of any size in, the network's input out.

The same numbers as `effdet_plugin.datasets.transforms.LetterBox` and the data preprocessor give.
Where those round to whole grey levels, OpenCV's integer arithmetic is repeated (opencv
modules/imgproc/src/resize.cpp: weights of 11 bits, and the shifts of its vector code), because
rounding a float result gives another grey level at every eighth pixel. It is repeated in float32,
which holds all but the longest products exactly and is faster than integers in every runtime.

All shapes are those of the network input: positions are computed for its whole area, and what lies
outside the resized image becomes padding. So the only varying sizes are the image's own.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from effdet_plugin.errors import ConfigError
from effdet_plugin.export.metadata import Metadata

_WEIGHT = 2048  # one, in weights of 11 bits


class _Axis(NamedTuple):
    """Where the pixels of an axis come from.

    Attributes:
        first: ``(n,)`` int64 index of the pixel before.
        second: Of the pixel behind, or the same at the border.
        weight: ``(n,)`` float32 of the second, in 0..1.
        is_inside: ``(n,)`` bool, False in padding.
    """

    first: Tensor
    second: Tensor
    weight: Tensor
    is_inside: Tensor


class FromPixels(nn.Module):
    """Resize, normalise and pad images.

    Args:
        metadata: Of the file: input size, resize mode and dtype, normalisation, padding.

    Raises:
        ConfigError: A resize mode that cannot be exported.
    """

    def __init__(self, metadata: Metadata) -> None:
        super().__init__()
        if metadata.resize_mode == 'stretch_mediapipe':
            raise ConfigError(
                '--input uint8: resize_mode=stretch_mediapipe cannot be put into a graph; leave '
                'the option out, the runtimes of that mode resize by themselves'
            )
        assert metadata.image_size is not None
        self.size = metadata.image_size
        self.keeps_ratio = metadata.resize_mode == 'letterbox'
        # Images that are stretched are rounded whatever the dtype, see `SizedTransform`.
        self.rounds = metadata.resize_dtype == 'uint8' or not self.keeps_ratio
        self.pad_value = metadata.pad_value
        self.register_buffer('mean', torch.tensor(metadata.mean).view(1, 3, 1, 1), persistent=True)
        self.register_buffer('std', torch.tensor(metadata.std).view(1, 3, 1, 1), persistent=True)
        self.register_buffer('sides', torch.tensor(self.size).float(), persistent=True)

    mean: Tensor
    std: Tensor
    sides: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """``(B, h, w, 3)`` uint8 RGB -> ``(B, 3, H, W)`` float32."""
        shape = torch.stack([_number(images, 1), _number(images, 2)])  # (2,) int64
        fitted = self._fitted(shape)
        rows, columns = (_axis(self.size[i], shape[i], fitted[i]) for i in (0, 1))
        mix = _mix_rounded if self.rounds else _mix_floats
        pixels = mix(images, rows, columns).permute(0, 3, 1, 2)
        normalised = (pixels.float() - self.mean) / self.std
        inside = rows.is_inside[:, None] & columns.is_inside[None]
        return torch.where(inside, normalised, self.pad_value)

    def _fitted(self, shape: Tensor) -> Tensor:
        """(height, width) of the resized image, computed as `fit_scale` and `scaled_shape` do."""
        if not self.keeps_ratio:
            return self.sides.long()
        scale = (self.sides / shape.float()).amin(0)
        return (shape.float() * scale).long().clamp(min=1)


def _number(images: Tensor, axis: int) -> Tensor:
    """Return a size of a tensor as a tensor: its value is known when the graph runs."""
    return torch.full((), images.shape[axis], dtype=torch.long, device=images.device)


def _axis(length: int, source: Tensor, target: Tensor) -> _Axis:
    """Find the source pixels of an axis, with the half pixel's shift of OpenCV's resize.

    Args:
        length: Of the canvas.
        source: () int64 pixels of the image.
        target: () int64 pixels of the resized image.
    """
    place = torch.arange(length, device=source.device)
    # (place + 1/2) * source / target - 1/2 in whole numbers, one pixel further to stay positive.
    doubled = 2 * target
    shifted = (2 * place + 1) * source + target
    whole = torch.div(shifted, doubled, rounding_mode='trunc')
    rest = (shifted - whole * doubled).float() / doubled.float()
    # OpenCV keeps the position in one float32, which rounds the weight.
    position = (whole - 1).float() + rest
    first = position.floor()
    weight = position - first
    last = source - 1
    index = first.long()
    weight = torch.where((index < 0) | (index >= last), 0.0, weight)
    index = torch.minimum(index.clamp(min=0), last)
    return _Axis(index, torch.minimum(index + 1, last), weight, place < target)


def _corners(images: Tensor, rows: _Axis, columns: _Axis) -> tuple[tuple[Tensor, Tensor], ...]:
    """Return the pixels left and right of each place, in the row above and in the row below."""
    lines = images.index_select(1, rows.first), images.index_select(1, rows.second)
    return tuple(
        (line.index_select(2, columns.first), line.index_select(2, columns.second))
        for line in lines
    )


def _mix_floats(images: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    across, down = columns.weight[:, None], rows.weight[:, None, None]
    above, below = (
        left.float() * (1 - across) + right.float() * across
        for left, right in _corners(images, rows, columns)
    )
    return above * (1 - down) + below * down


def _mix_rounded(images: Tensor, rows: _Axis, columns: _Axis) -> Tensor:
    across, down = _parts(columns.weight[:, None]), _parts(rows.weight[:, None, None])
    # The shifts to the right are divisions by powers of two, rounded down; all values are positive.
    above, below = (
        ((left.float() * across[0] + right.float() * across[1]) / (1 << 4)).floor()
        for left, right in _corners(images, rows, columns)
    )
    total = (above * (down[0] / (1 << 16))).floor() + (below * (down[1] / (1 << 16))).floor()
    return ((total + 2) / (1 << 2)).floor()


def _parts(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the first and the second pixel in 11 bits, each rounded by itself."""
    return ((1 - weight) * _WEIGHT).round(), (weight * _WEIGHT).round()
