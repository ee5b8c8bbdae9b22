"""Spatial resampling in the forms that training, export and quantisation share.

Nearest upsampling always names its target size, and SAME pooling makes no padded copy: both equal
the reference (google/automl efficientdet/tf2/efficientdet_keras.py) exactly and convert to native
operators of the deployment runtimes.
"""

import torch.nn.functional as F
from torch import Tensor


def pool_geometry(size: int, target: int) -> tuple[int, int]:
    """Kernel and stride that pool a side of ``size`` to ``target``; kernel = stride + 1."""
    stride = (size - 1) // target + 1
    return stride + 1, stride


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one axis, (before, after): the odd one goes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def max_pool_same(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Max pooling with SAME padding by minus infinity.

    Args:
        x: ``(B, C, H, W)``.
        kernel: (vertical, horizontal).
        stride: (vertical, horizontal).

    Returns:
        ``(B, C, ceil(H / stride), ceil(W / stride))``.
    """
    height, width = x.shape[-2:]
    # The usual case is one call without a padded copy: ceil_mode lets the last window run over the
    # edge, and only an odd size is padded before the first position. See same_padding.
    if kernel == (3, 3) and stride == (2, 2):
        return F.max_pool2d(x, 3, 2, padding=(height % 2, width % 2), ceil_mode=True)
    return F.max_pool2d(_pad_same(x, kernel, stride, float('-inf')), kernel, stride)


def avg_pool_same(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Average over positions inside the map, SAME padding; shapes as :func:`max_pool_same`."""
    ones = x.new_ones((1, 1, *x.shape[-2:]))
    # Both averages divide by the kernel's area; their quotient divides by the positions inside.
    total = F.avg_pool2d(_pad_same(x, kernel, stride, 0.0), kernel, stride)
    return total / F.avg_pool2d(_pad_same(ones, kernel, stride, 0.0), kernel, stride)


def _pad_same(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], value: float) -> Tensor:
    top, bottom = same_padding(x.shape[-2], kernel[0], stride[0])
    left, right = same_padding(x.shape[-1], kernel[1], stride[1])
    return F.pad(x, (left, right, top, bottom), value=value)


def resample_nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample ``(B, C, H, W)`` to exactly ``size``: source index ``floor(i * in / out)``."""
    # By size, not scale factor: TensorFlow's index, also where the sizes are no multiple.
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode='nearest')


def pool_to_size(x: Tensor, size: tuple[int, int], average: bool = False) -> Tensor:
    """Pool ``(B, C, H, W)`` down to ``size``; a 1x1 map stays as it is."""
    if x.shape[-2:] == size:
        return x
    kernel_h, stride_h = pool_geometry(x.shape[-2], size[0])
    kernel_w, stride_w = pool_geometry(x.shape[-1], size[1])
    pool = avg_pool_same if average else max_pool_same
    return pool(x, (kernel_h, kernel_w), (stride_h, stride_w))
