"""Spatial resampling in the forms that training, export and quantisation share.

Nearest upsampling always names its target size, and SAME pooling adds no tensor of its own: both
equal the reference exactly and convert to the native operators of the deployment runtimes.
"""

import torch.nn.functional as F
from torch import Tensor


def pool_geometry(size: int, target: int) -> tuple[int, int]:
    """Kernel and stride that pool ``size`` cells to ``target`` (reference: kernel = stride + 1)."""
    stride = (size - 1) // target + 1
    return stride + 1, stride


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one axis, (before, after): the odd cell goes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def max_pool_same(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Max pooling with SAME padding by minus infinity.

    The usual case, 3/2, is one pooling call without a padded copy: ``ceil_mode`` lets the last
    window run over the edge, and one cell before the first is missing only when the size is odd.

    Args:
        x: ``(B, C, H, W)``.
        kernel: (vertical, horizontal).
        stride: (vertical, horizontal).

    Returns:
        ``(B, C, ceil(H / stride), ceil(W / stride))``.
    """
    height, width = x.shape[-2:]
    if kernel == (3, 3) and stride == (2, 2):
        return F.max_pool2d(x, 3, 2, padding=(height % 2, width % 2), ceil_mode=True)
    return F.max_pool2d(_pad_same(x, kernel, stride, float('-inf')), kernel, stride)


def avg_pool_same(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Average over the real cells, SAME padding; shapes as :func:`max_pool_same`."""
    ones = x.new_ones((1, 1, *x.shape[-2:]))
    total = F.avg_pool2d(_pad_same(x, kernel, stride, 0.0), kernel, stride)
    return total / F.avg_pool2d(_pad_same(ones, kernel, stride, 0.0), kernel, stride)


def _pad_same(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], value: float) -> Tensor:
    top, bottom = same_padding(x.shape[-2], kernel[0], stride[0])
    left, right = same_padding(x.shape[-1], kernel[1], stride[1])
    return F.pad(x, (left, right, top, bottom), value=value)


def resample_nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample ``(B, C, H, W)`` to exactly ``size``: source index ``floor(i * in / out)``."""
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode='nearest')


def pool_to_size(x: Tensor, size: tuple[int, int], average: bool = False) -> Tensor:
    """Pool ``(B, C, H, W)`` down to ``size``; a 1x1 map stays as it is."""
    if x.shape[-2:] == size:
        return x
    kernel_h, stride_h = pool_geometry(x.shape[-2], size[0])
    kernel_w, stride_w = pool_geometry(x.shape[-1], size[1])
    pool = avg_pool_same if average else max_pool_same
    return pool(x, (kernel_h, kernel_w), (stride_h, stride_w))
