"""Spatial resampling: max and average pooling with SAME padding, nearest upsampling.

Both equal the reference (google/automl efficientdet/tf2/efficientdet_keras.py) exactly. Upsampling
is given its target size, and the usual pooling makes no padded copy, so that both can be exported
as single operators.
"""

import torch.nn.functional as F
from torch import Tensor


def pool_geometry(size: int, target: int) -> tuple[int, int]:
    """Kernel and stride that pool a side of ``size`` to ``target``, as in the reference."""
    stride = (size - 1) // target + 1
    return stride + 1, stride


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one axis, (before, after); an odd pixel goes after."""
    # -(-a // b) is a / b rounded up.
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def max_pool_same(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Max pooling with SAME padding of minus infinity.

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
    """Average pooling that does not count SAME padding; arguments as :func:`max_pool_same`."""
    ones = x.new_ones((1, 1, *x.shape[-2:]))
    # Both averages divide by the kernel's area; their quotient, by the number of positions inside.
    total = F.avg_pool2d(_pad_same(x, kernel, stride, 0.0), kernel, stride)
    return total / F.avg_pool2d(_pad_same(ones, kernel, stride, 0.0), kernel, stride)


def zero_pool_same(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Max pooling with SAME padding of zeros; arguments as :func:`max_pool_same`.

    So do zylo117's and mmdetection's ports, whose weights are trained with it.
    """
    return F.max_pool2d(_pad_same(x, kernel, stride, 0.0), kernel, stride)


POOLS = {'max': max_pool_same, 'max_zero': zero_pool_same, 'avg': avg_pool_same}


def _pad_same(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], value: float) -> Tensor:
    top, bottom = same_padding(x.shape[-2], kernel[0], stride[0])
    left, right = same_padding(x.shape[-1], kernel[1], stride[1])
    return F.pad(x, (left, right, top, bottom), value=value)


def resample_nearest(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample ``(B, C, h, w)`` to ``size`` (H, W), from source index ``floor(i * h / H)``."""
    # size=, not scale_factor=, gives TensorFlow's source index for any pair of sizes.
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode='nearest')


def pool_to_size(x: Tensor, size: tuple[int, int], pool_type: str = 'max') -> Tensor:
    """Pool ``(B, C, H, W)`` down to ``size`` (height, width); a 1x1 map stays as it is.

    Args:
        x: the map.
        size: the target.
        pool_type: key of :data:`POOLS`.
    """
    if x.shape[-2:] == size:
        return x
    kernel_h, stride_h = pool_geometry(x.shape[-2], size[0])
    kernel_w, stride_w = pool_geometry(x.shape[-1], size[1])
    return POOLS[pool_type](x, (kernel_h, kernel_w), (stride_h, stride_w))
