"""The best (anchor, class) pairs of a batch of logits: the candidates of NMS.

The best k pairs are on the k anchors whose best class is highest, so one large sort over all pairs
is replaced by a sort over anchors and one over what they hold. With a score threshold most images
have a few candidates, and the others cannot be detected: NMS only lowers scores. How many there are
depends on the images; a CPU and an exported graph may ask, eager code on a GPU would wait for it.

Source of the order of equal logits on a CPU: `tf.math.top_k`, which the reference calls, puts the
lower index first.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effdet_plugin.ops.boxes import gather_rows

Pairs = tuple[Tensor, Tensor, Tensor]
_NEG_INF = float('-inf')


def top_pairs(logits: Tensor, k: int) -> Pairs:
    """Best (anchor, class) pairs of ``(B, N, C)`` logits: values, anchors, classes ``(B, k)``."""
    num_anchors, num_classes = logits.shape[1:]
    if num_anchors > k:
        _, anchors = logits.amax(-1).topk(k, dim=1)  # (B, k)
        logits = gather_rows(logits, anchors)  # (B, k, C)
    values, flat = logits.flatten(1).topk(min(k, logits[0].numel()), dim=1)
    rows, labels = flat.div(num_classes, rounding_mode='floor'), flat % num_classes
    return values, anchors.gather(1, rows) if num_anchors > k else rows, labels


def top_pairs_in_graph(logits: Tensor, k: int, above: float) -> Pairs:
    """:func:`top_pairs` for exported graphs: as many as the fullest image has above a logit.

    At least one. Images with fewer get pairs of lower logits.

    Args:
        logits: ``(B, N, C)``.
        k: highest number of pairs.
        above: lowest logit that can be detected, exclusive.
    """
    num_anchors, num_classes = logits.shape[1:]
    best = logits.amax(-1)
    rows: Any = (best > above).sum(1).max().clamp(1, min(k, num_anchors)).item()
    torch._check(rows >= 1)
    torch._check(rows <= num_anchors)
    _, anchors = best.topk(rows, dim=1)
    held = gather_rows(logits, anchors).flatten(1)  # (B, rows * C)
    number: Any = (held > above).sum(1).max().clamp(1, k).item()
    torch._check(number >= 1)
    torch._check(number <= rows * num_classes)
    values, flat = held.topk(number, dim=1)
    index = anchors.gather(1, flat.div(num_classes, rounding_mode='floor'))
    return values, index, flat % num_classes


def top_pairs_on_cpu(levels: Sequence[Tensor], k: int, above: float = _NEG_INF) -> Pairs:
    """:func:`top_pairs` on a CPU, of those above a logit; of equal ones the first.

    Args:
        levels: logits ``(B, n_l, C)`` float32 of each pyramid level. They are not put together,
            which would take as long as the search.
        k: highest number of pairs.
        above: lowest logit that can be detected, exclusive.

    Returns:
        As many pairs as the fullest image has, at least one; others are filled with logits of
        minus infinity.
    """
    batch, _, num_classes = levels[0].shape
    images = zip(*(level.detach() for level in levels), strict=True)
    found = [_of_image(image, k, above) for image in images]
    number = max([1, *(len(values) for values, _ in found)])
    values = np.full((batch, number), _NEG_INF, np.float32)
    flat = np.zeros((batch, number), np.int64)
    for row, (one_values, one_flat) in enumerate(found):
        values[row, : len(one_values)], flat[row, : len(one_flat)] = one_values, one_flat
    pairs = values, flat // num_classes, flat % num_classes
    return tuple(torch.from_numpy(x) for x in pairs)  # type: ignore[return-value]


def _of_image(levels: Sequence[Tensor], k: int, above: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Descending logits and flat indices of the best pairs of one image, levels ``(n_l, C)``."""
    num_classes = levels[0].shape[1]
    best = torch.cat([level.amax(-1) for level in levels])
    rows = np.flatnonzero(best.numpy() > above)
    is_full = len(rows) > k
    if is_full:
        # There are k pairs of at least this logit, and all of them are on these anchors.
        # (NaN is above none, but topk would put it first.)
        least = float(best[torch.from_numpy(rows)].topk(k, sorted=False).values.min())
        rows = np.flatnonzero(best.numpy() >= least)
    held = _rows(levels, rows).flatten().numpy()
    if is_full:
        places = np.flatnonzero(held >= least)
    elif len(held) > k and above == _NEG_INF:
        least = float(torch.from_numpy(held).topk(k, sorted=False).values.min())
        places = np.flatnonzero(held >= least)
    else:
        places = np.flatnonzero(held > above)
    order = np.argsort(-held[places], kind='stable')[:k]
    places = places[order]
    return held[places], rows[places // num_classes] * num_classes + places % num_classes


def _rows(levels: Sequence[Tensor], rows: NDArray[Any]) -> Tensor:
    """Ascending rows of all levels, counted over them."""
    if len(levels) == 1:
        return levels[0][torch.from_numpy(rows)]
    starts = list(accumulate((len(level) for level in levels), initial=0))
    cuts = np.searchsorted(rows, starts)
    parts = zip(levels, starts, cuts, cuts[1:], strict=False)
    return torch.cat([x[torch.from_numpy(rows[a:b] - start)] for x, start, a, b in parts])
