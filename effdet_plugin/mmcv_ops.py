"""The compiled mmcv operators that mmdet's common detectors call, in torch and numpy.

They replace ``mmcv._ext`` (see :mod:`effdet_plugin.compat`) with its calling conventions: results
are written into tensors that the caller passes, and argument names are mmcv's. They are correct but
slow, above all RoIAlign (seconds for 128 RoIs on a 100x128 map). Our detectors use none of them;
install a compiled mmcv to train Faster R-CNN and similar detectors.

Source: mmcv 2.1.0, ``mmcv/ops/csrc``, where the functions have the same names.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from effdet_plugin.errors import InstallError

_ROIS_AT_ONCE = 64  # limits the memory of RoIAlign's (RoIs, bins, channels, width) intermediate


class MissingOpError(InstallError, NotImplementedError):
    """An operator that only a compiled mmcv has."""


def missing_op(name: str) -> Callable[..., Any]:
    """Return a function that raises when it is called: mmcv looks up all operators on import.

    Raises:
        AttributeError: ``name`` is a dunder name, which Python itself looks up.
    """
    if name.startswith('__'):
        raise AttributeError(name)

    def raise_missing(*args: Any, **kwargs: Any) -> Any:
        raise MissingOpError(
            f'mmcv op {name!r} needs a compiled mmcv; install mmcv>=2.0,<2.2 with its ops '
            'in place of mmcv-lite'
        )

    return raise_missing


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy hard NMS.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        iou_threshold: A box is removed if its IoU with a kept box of higher score is above it.
        offset: 0 or 1, added to widths and heights.

    Returns:
        (K,) int64 indices of the kept boxes, best first.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    corners = boxes.detach()[order].float().cpu().numpy()
    areas = np.prod(corners[:, 2:] - corners[:, :2] + offset, axis=1)
    keep, rest = [], np.arange(len(corners))
    while rest.size:
        best, rest = rest[0], rest[1:]
        keep.append(int(best))
        iou = _iou(corners[best], areas[best], corners[rest], areas[rest], offset)
        rest = rest[~(iou > iou_threshold)]
    return order[torch.tensor(keep, dtype=torch.int64, device=order.device)]


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS; writes the kept boxes and their decayed scores into ``dets``.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        dets: (N, 5), the first K rows are filled.
        iou_threshold: used by methods 0 and 1.
        sigma: used by method 2.
        min_score: Boxes with a decayed score below it are removed.
        method: 0 hard, 1 linear, 2 gaussian.
        offset: 0 or 1, added to widths and heights.

    Returns:
        (K,) int64 indices of the kept boxes, in the order of selection.
    """
    corners = boxes.detach().float().cpu().numpy()
    current = scores.detach().float().cpu().numpy().copy()
    areas = np.prod(corners[:, 2:] - corners[:, :2] + offset, axis=1)
    keep, rest = [], np.arange(len(corners))
    while rest.size:
        at = int(np.argmax(current[rest]))
        best, rest = int(rest[at]), np.delete(rest, at)
        keep.append(best)
        iou = _iou(corners[best], areas[best], corners[rest], areas[rest], offset)
        current[rest] *= _decay(iou, iou_threshold, sigma, method)
        rest = rest[current[rest] >= min_score]
    indices = torch.tensor(keep, dtype=torch.int64)
    dets[: len(keep), :4] = boxes[indices.to(boxes.device)].to(dets)
    dets[: len(keep), 4] = torch.from_numpy(current)[indices].to(dets)
    return indices


def _iou(
    box: np.ndarray, area: np.ndarray, others: np.ndarray, areas: np.ndarray, offset: int
) -> np.ndarray:
    """(N,) IoU of one box with many; NaN between two empty ones, as in mmcv."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    overlap = np.prod(np.maximum(high - low + offset, 0), axis=1)
    with np.errstate(invalid='ignore', divide='ignore'):
        iou: np.ndarray = overlap / (area + areas - overlap)
    return iou


def _decay(iou: np.ndarray, iou_threshold: float, sigma: float, method: int) -> np.ndarray:
    if method == 2:
        return np.exp(-(iou**2) / sigma)
    return np.where(iou >= iou_threshold, 1 - iou if method == 1 else 0.0, 1.0)


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign with average pooling, into ``output``.

    Bilinear weights are separable: a bin has the value ``rows @ map @ columns``, with weights that
    are means over its samples.

    Args:
        input: (B, C, H, W).
        rois: (R, 5) batch index and xyxy in pixels of the image.
        output: (R, C, aligned_height, aligned_width).
        argmax_y: unused, for max pooling.
        argmax_x: unused, for max pooling.
        aligned_height: bins in y.
        aligned_width: bins in x.
        spatial_scale: pixels of the map per pixel of the image.
        sampling_ratio: samples per bin and axis; 0: the size of the bin in positions, rounded up.
        pool_mode: 1 average; 0 (maximum) is not supported.
        aligned: shift by half a pixel, and allow RoIs below one pixel.
    """
    del argmax_y, argmax_x
    grid = (aligned_height, aligned_width)
    for image, chosen in _roi_chunks(input.shape[0], rois, pool_mode):
        rows, columns = _roi_weights(
            rois[chosen, 1:], input.shape[2:], grid, spatial_scale, sampling_ratio, aligned
        )
        bands = torch.einsum('rph,chw->rpcw', rows.to(input.dtype), input[image])
        output[chosen] = torch.einsum('rpcw,rqw->rcpq', bands, columns.to(input.dtype))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of :func:`roi_align_forward`, added to ``grad_input`` (B, C, H, W)."""
    del argmax_y, argmax_x
    grid = (aligned_height, aligned_width)
    for image, chosen in _roi_chunks(grad_input.shape[0], rois, pool_mode):
        rows, columns = _roi_weights(
            rois[chosen, 1:], grad_input.shape[2:], grid, spatial_scale, sampling_ratio, aligned
        )
        dtype = grad_output.dtype
        bands = torch.einsum('rcpq,rqw->rpcw', grad_output[chosen], columns.to(dtype))
        grad_input[image] += torch.einsum('rpcw,rph->chw', bands, rows.to(dtype))


def _roi_chunks(images: int, rois: Tensor, pool_mode: int) -> list[tuple[int, Tensor]]:
    """Pairs of an image index and the indices of up to 64 RoIs in it, which cover all RoIs."""
    if pool_mode != 1:
        missing_op('roi_align with max pooling')()
    pairs = []
    for image in range(images):
        indices = torch.nonzero(rois[:, 0] == image).flatten()
        pairs += [(image, chunk) for chunk in indices.split(_ROIS_AT_ONCE) if len(chunk)]
    return pairs


def _roi_weights(
    boxes: Tensor,
    size: torch.Size,
    grid: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor]:
    """Weights (R, bins, H) of the rows and (R, bins, W) of the columns."""
    boxes = boxes.float() * spatial_scale - (0.5 if aligned else 0.0)
    extent = boxes[:, 2:] - boxes[:, :2]
    if not aligned:
        extent = extent.clamp(min=1.0)
    rows = _axis_weights(boxes[:, 1], extent[:, 1], size[0], grid[0], sampling_ratio)
    columns = _axis_weights(boxes[:, 0], extent[:, 0], size[1], grid[1], sampling_ratio)
    return rows, columns


def _axis_weights(
    start: Tensor, extent: Tensor, size: int, bins: int, sampling_ratio: int
) -> Tensor:
    """(R, bins, size): the mean, over the samples of a bin, of their interpolation weights."""
    bin_size = extent / bins
    samples = torch.full_like(start, sampling_ratio) if sampling_ratio > 0 else bin_size.ceil()
    samples = samples.clamp(min=1)
    most = int(samples.max())
    index = torch.arange(most, device=start.device)
    step = (index + 0.5) / samples[:, None]  # (R, S) in units of a bin
    at = start[:, None, None] + bin_size[:, None, None] * (
        torch.arange(bins, device=start.device)[:, None] + step[:, None, :]
    )  # (R, bins, S)
    inside = (at >= -1) & (at <= size) & (index < samples[:, None])[:, None, :]
    share = inside / samples[:, None, None]
    at = at.clamp(0, size - 1)
    low = at.floor()
    weights = at.new_zeros(*at.shape[:2], size)
    weights.scatter_add_(2, low.long(), share * (1 - (at - low)))
    high = (low.long() + 1).clamp(max=size - 1)
    return weights.scatter_add_(2, high, share * (at - low))


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    """Elementwise focal loss of logits ``input`` (N, C), into ``output`` (N, C).

    Args:
        input: (N, C) logits.
        target: (N,) class indices, C for background.
        weight: (C,) weight of each class, by which rows of that target are multiplied; or empty.
        output: (N, C), overwritten.
        gamma: focusing exponent.
        alpha: weight of the positives.
    """
    positive = _one_hot(input, target)
    p = input.sigmoid()
    positive_loss = alpha * (1 - p) ** gamma * -F.logsigmoid(input)
    negative_loss = (1 - alpha) * p**gamma * -F.logsigmoid(-input)
    loss = torch.where(positive, positive_loss, negative_loss)
    output.copy_(loss * _target_weight(input, target, weight))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, *, gamma: float, alpha: float
) -> None:
    """Derivative of :func:`sigmoid_focal_loss_forward` by its logits, into ``grad_input``."""
    positive = _one_hot(input, target)
    p = input.sigmoid()
    positive_grad = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * F.logsigmoid(input))
    negative_grad = (alpha - 1) * p**gamma * (gamma * (1 - p) * F.logsigmoid(-input) - p)
    grad = torch.where(positive, positive_grad, negative_grad)
    grad_input.copy_(grad * _target_weight(input, target, weight))


def _one_hot(input: Tensor, target: Tensor) -> Tensor:
    return target[:, None] == torch.arange(input.shape[1], device=input.device)


def _target_weight(input: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    if weight.numel() == 0:
        return input.new_ones(1, 1)
    return torch.cat([weight, weight.new_ones(1)])[target.clamp(max=input.shape[1])][:, None]


def get_compiler_version() -> str:
    """Return what mmcv's ``collect_env`` prints as compiler: none, nothing was compiled."""
    return 'n/a'


def get_compiling_cuda_version() -> str:
    """Return what mmcv's ``collect_env`` prints as CUDA compiler: none."""
    return 'n/a'


OPS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        nms,
        softnms,
        roi_align_forward,
        roi_align_backward,
        sigmoid_focal_loss_forward,
        sigmoid_focal_loss_backward,
        get_compiler_version,
        get_compiling_cuda_version,
    )
}
