"""A file beside PyTorch: the same images through both, and how far they differ."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from effdet_plugin.errors import CheckpointError
from effdet_plugin.export.metadata import Metadata
from effdet_plugin.export.runtime import Array

MIN_SCORE = 0.05  # rows below are not compared one by one: there rounding changes who is kept
_LEAST_GAP = 1e-3  # between scores, as a share: rounding moves nothing across it
PARTNER_PX = 2.0  # farthest that a detection of a file may be from PyTorch's own
# Integers move boxes and scores: detections that somebody would look at are looked for, as
# evaluations do, by overlap.
INTEGERS = ('dynamic', 'int8')  # precisions
INT8_MIN_SCORE = 0.3
INT8_PARTNER_IOU = 0.5
INT8_SCORE_GAP = 0.4  # of an anchor, in raw files
INT8_SPARE = 2  # detections that may be lost where a share of a few says nothing

Fits = Callable[[Array, Array], Array]


class Bounds(NamedTuple):
    """Largest differences that are accepted.

    Attributes:
        matched: Smallest share of detections that are found again.
        box: Of matched boxes, as a share of the input's longer side.
        score: Of matched scores, or of scores in 0..1.
        raw: Of raw outputs, as a share of their largest value.
        highest: Of the highest score of an image without a detection to look for, as a share.
    """

    matched: float
    box: float
    score: float
    raw: float
    highest: float


BOUNDS = {
    'fp32': Bounds(0.99, 1e-4, 1e-3, 1e-3, 1e-2),
    'fp16': Bounds(0.9, 1e-2, 5e-2, 5e-2, 0.5),
    # Boxes that overlap by half may be far apart where objects fill the image.
    'dynamic': Bounds(0.9, 0.25, 0.4, 0.4, 1.0),
    'int8': Bounds(0.9, 0.1, 0.5, 0.4, 1.0),
}


class Difference(NamedTuple):
    """How far a file is from PyTorch, largest of all images.

    Attributes:
        expected: Number of detections of PyTorch that were looked for.
        matched: Share of them that the file found, and of the file's that PyTorch found.
        box: Of matched boxes, or of decoded ones, as a share of the input's longer side.
        score: Of matched scores.
        raw: Of raw outputs, as a share of their largest value.
        highest: Of the highest score, as a share, in images without a detection to look for: there
            is nothing else to compare where a network finds nothing.
    """

    expected: int = 0
    matched: float = 1.0
    box: float = 0.0
    score: float = 0.0
    raw: float = 0.0
    highest: float = 0.0

    def joined(self, other: 'Difference') -> 'Difference':
        """Return the worse of two."""
        total = self.expected + other.expected
        shares = self.matched * self.expected + other.matched * other.expected
        return Difference(
            total,
            shares / total if total else min(self.matched, other.matched),
            max(self.box, other.box),
            max(self.score, other.score),
            max(self.raw, other.raw),
            max(self.highest, other.highest),
        )

    def text(self, metadata: Metadata) -> str:
        """Return the numbers that the end of a file has, in words."""
        end = metadata.end
        if end == 'raw':
            scores = (
                f', {self.matched:.1%} of {self.expected} scores >= {INT8_MIN_SCORE} within '
                f'{INT8_SCORE_GAP}'
            )
            far = f'largest difference {self.raw:.1e} of the largest value'
            return far + (scores if metadata.precision in INTEGERS else '')
        numbers = f'boxes {self.box:.1e} of the side, scores {self.score:.1e}'
        if end == 'decoded':
            return numbers
        is_int8 = metadata.precision in INTEGERS
        if not self.expected:
            least = INT8_MIN_SCORE if is_int8 else MIN_SCORE
            gap = f'; highest score differs by {self.highest:.1e}' if self.highest else ''
            return f'no detection of score >= {least}{gap}'
        least_score = f' of score >= {INT8_MIN_SCORE}' if is_int8 else ''
        return f'{self.expected} detections{least_score}, {self.matched:.1%} found again; {numbers}'


def compare(
    expected: Mapping[str, Array],
    found: Mapping[str, Array],
    metadata: Metadata,
    side: int,
    min_score: float | None = None,
) -> Difference:
    """Compare the arrays of a batch.

    Args:
        expected: PyTorch's.
        found: The file's.
        metadata: Of the file.
        side: Longer side of the network input, in pixels.
        min_score: Detections below are not looked for; None: `MIN_SCORE`, of int8 `INT8_MIN_SCORE`.

    Raises:
        CheckpointError: Arrays of another shape, or values that are not finite.
    """
    for name in metadata.outputs:
        if expected[name].shape != found[name].shape or not np.isfinite(found[name]).all():
            raise CheckpointError(
                f'{name} has shape {found[name].shape} and finite values: '
                f'{bool(np.isfinite(found[name]).all())}; PyTorch gives {expected[name].shape}'
            )
    if metadata.end == 'postprocess':
        is_int8 = metadata.precision in INTEGERS
        if min_score is None:
            min_score = INT8_MIN_SCORE if is_int8 else MIN_SCORE
        return _detections(expected, found, side, min_score, overlap if is_int8 else nearness)
    if metadata.end == 'raw' and metadata.precision in INTEGERS:
        return _raw_of_integers(expected, found)
    gaps = {n: float(np.abs(expected[n] - found[n]).max()) for n in metadata.outputs}
    if metadata.end == 'decoded':
        return Difference(box=gaps['boxes'] / side, score=gaps['scores'])
    sizes = {n: float(np.abs(expected[n]).max()) or 1.0 for n in metadata.outputs}
    return Difference(raw=max(gaps[n] / sizes[n] for n in gaps))


def _raw_of_integers(expected: Mapping[str, Array], found: Mapping[str, Array]) -> Difference:
    """Compare, anchor by anchor, the scores that somebody would look at, and their deltas.

    Eight bits of a score do not tell one small logit from another, and deltas of background differ
    most; they are compared where nothing else is.
    """
    one, other = (1 / (1 + np.exp(-x['logits'].astype(np.float64))) for x in (expected, found))
    is_seen = np.maximum(one, other) >= INT8_MIN_SCORE
    gaps = np.abs(one - other)[is_seen]
    shifts = np.abs(expected['deltas'] - found['deltas'])
    if is_seen.any():  # else there is nothing but background to compare
        shifts = shifts[is_seen.any(axis=-1)]
    largest = float(np.abs(expected['deltas']).max()) or 1.0
    return Difference(
        len(gaps),
        float((gaps <= INT8_SCORE_GAP).mean()) if len(gaps) else 1.0,
        score=float(gaps.max(initial=0.0)),
        raw=float(shifts.max(initial=0.0)) / largest,
    )


def _detections(
    expected: Mapping[str, Array],
    found: Mapping[str, Array],
    side: int,
    min_score: float,
    fits: Fits,
) -> Difference:
    """Match the detections of each image: those of both sides need a partner."""
    total = Difference()
    for row in range(len(expected['num'])):
        one, other = (_real_rows(arrays, row) for arrays in (expected, found))
        _check_padding(found, row)
        pairs = match(one, other, fits)
        misses = []
        for arrays, paired in ((one, {i for i, _ in pairs}), (other, {j for _, j in pairs})):
            wanted = [i for i, score in enumerate(arrays['scores']) if score >= min_score]
            misses.append((len(wanted), sum(i not in paired for i in wanted)))
        number = max(wanted for wanted, _ in misses)
        share = max((missed / wanted for wanted, missed in misses if wanted), default=0.0)
        pairs = [(i, j) for i, j in pairs if max(one['scores'][i], other['scores'][j]) >= min_score]
        boxes = [np.abs(one['boxes'][i] - other['boxes'][j]).max() for i, j in pairs]
        scores = [abs(one['scores'][i] - other['scores'][j]) for i, j in pairs]
        tops = [float(arrays['scores'].max(initial=0.0)) for arrays in (one, other)]
        total = total.joined(
            Difference(
                number,
                1.0 - share,
                float(max(boxes, default=0.0)) / side,
                float(max(scores, default=0.0)),
                highest=0.0 if number or not any(tops) else 1.0 - min(tops) / max(tops),
            )
        )
    return total


def _real_rows(arrays: Mapping[str, Array], row: int) -> dict[str, Array]:
    count = int(arrays['num'][row])
    return {name: arrays[name][row, :count] for name in ('boxes', 'scores', 'labels')}


def _check_padding(found: Mapping[str, Array], row: int) -> None:
    """Check that rows after the count are padding, and rows before it are not.

    Raises:
        CheckpointError: A row of padding holds values, or is counted.
    """
    count = int(found['num'][row])
    if (found['scores'][row, :count] <= 0).any() or (found['labels'][row, :count] < 0).any():
        raise CheckpointError(f'{count} detections of an image are counted, padding among them')
    rest = {name: found[name][row, count:] for name in ('boxes', 'scores', 'labels')}
    if rest['boxes'].any() or rest['scores'].any() or (rest['labels'] != -1).any():
        raise CheckpointError(f'the rows after the {count} detections of an image are no padding')


def nearness(boxes: Array, box: Array) -> Array:
    """Whether boxes ``(n, 4)`` are within `PARTNER_PX` of one."""
    return np.asarray(np.abs(boxes - box).max(axis=1, initial=0.0) <= PARTNER_PX)


def overlap(boxes: Array, box: Array) -> Array:
    """Whether boxes ``(n, 4)`` have at least `INT8_PARTNER_IOU` with one."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    shared = sides.clip(0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1), (box[2:] - box[:2]).prod()
    return np.asarray(shared >= INT8_PARTNER_IOU * (areas[0] + areas[1] - shared))


def match(
    one: Mapping[str, Array], other: Mapping[str, Array], is_partner: Fits = nearness
) -> list[tuple[int, int]]:
    """Pair detections of the same class whose boxes fit, nearest scores first.

    Args:
        one: ``boxes`` ``(n, 4)`` xyxy, ``scores`` ``(n,)``, ``labels`` ``(n,)``.
        other: Likewise.
        is_partner: Which of the other's boxes fit one.
    """
    pairs, taken = [], np.zeros(len(other['scores']), bool)
    for i, box in enumerate(one['boxes']):
        fits = is_partner(other['boxes'], box) & (other['labels'] == one['labels'][i]) & ~taken
        if fits.any():
            j = int(np.argmin(np.where(fits, np.abs(other['scores'] - one['scores'][i]), np.inf)))
            taken[j] = True
            pairs.append((i, j))
    return pairs


def limits_of(scores: Array) -> list[float]:
    """Return least scores to try, ascending, at which rows of padding may be left.

    Each lies in the widest gap of its part of the scores, so that rounding moves nothing across it.

    Args:
        scores: Of all detections.
    """
    ordered = np.sort(np.asarray(scores, np.float64))[::-1]
    limits = []
    for share in (0.5, 0.25, 0.12, 0.05):
        part = ordered[int(len(ordered) * share / 2) : int(len(ordered) * share * 1.5) + 2]
        if len(part) > 1:
            widest = int(np.argmax(part[:-1] - part[1:]))
            above, below = float(part[widest]), float(part[widest + 1])
            if above - below > _LEAST_GAP * above:
                limits.append((above + below) / 2)
    return limits


def failures(difference: Difference, metadata: Metadata) -> str:
    """Return what is over its bound; '' if nothing is."""
    bounds = BOUNDS[metadata.precision]
    limits = {
        'raw': ('raw',),
        'decoded': ('box', 'score'),
        'postprocess': ('box', 'score', 'highest'),
    }[metadata.end]
    over = [
        f'{name} {getattr(difference, name):.1e} > {getattr(bounds, name):g}'
        for name in limits
        if getattr(difference, name) > getattr(bounds, name)
    ]
    lost = (1 - difference.matched) * difference.expected
    spare = INT8_SPARE if metadata.precision in INTEGERS else 0
    if difference.matched < bounds.matched and lost > spare + 1e-6:
        over.append(f'matched {difference.matched:.3f} < {bounds.matched:g}')
    return ', '.join(over)
