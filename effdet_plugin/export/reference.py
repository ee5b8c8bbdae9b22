"""PyTorch's side of the check of a file: the network as it is trained, on a few images."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from effdet_plugin.export import check
from effdet_plugin.export.images import Preparation
from effdet_plugin.export.metadata import Metadata
from effdet_plugin.export.program import NO_LIMIT, EndToEnd
from effdet_plugin.export.runtime import Array, Outputs, Runtime
from effdet_plugin.trained_model import TrainedModel

BATCHES = (1, 2)
DYNAMIC_SIZE = (256, 384)  # at which a file of any size is checked
_INT8_IMAGES = 32  # rounding loses some detections: a share needs more than two images

Tell = Callable[[str], None]


def images_needed(metadata: Metadata) -> int:
    """Return how many images the check of a file looks at, if there are as many."""
    return _INT8_IMAGES if metadata.precision in check.INTEGERS else max(BATCHES)


class Reference:
    """The network in eager PyTorch, not folded, on the images of the check.

    Args:
        trained: The network.
        metadata: Of the file.
        images: RGB pixels.
    """

    def __init__(self, trained: TrainedModel, metadata: Metadata, images: Sequence[Array]) -> None:
        self.metadata = metadata
        self.size = metadata.image_size or DYNAMIC_SIZE
        prepare = Preparation(trained.model, self.size, metadata.resize_dtype, metadata.resize_mode)
        # A batch of pixels has one size: the second is the first's, as where there is only one.
        if metadata.input == 'uint8' or len(images) == 1:
            images = [images[0], np.ascontiguousarray(images[0][:, ::-1]), *images[1:]]
        self.inputs = np.stack([prepare(image) for image in images])
        self.feeds = list(images) if metadata.input == 'uint8' else list(self.inputs)
        self.module = EndToEnd(trained.model, metadata.image_size, metadata.end).eval()

    @torch.no_grad()
    def run(self, rows: int | Sequence[int], min_score: float = NO_LIMIT) -> Outputs:
        """Return PyTorch's arrays of the first images, or of those of these numbers."""
        if self.metadata.end == 'postprocess':
            self.module.min_score.fill_(min_score)
        chosen = self.inputs[: rows if isinstance(rows, int) else None]
        chosen = chosen if isinstance(rows, int) else chosen[list(rows)]
        found = self.module(torch.from_numpy(chosen))
        return {n: x.numpy() for n, x in zip(self.metadata.outputs, found, strict=True)}

    def limit_with_padding(self) -> float:
        """Return a least score of candidates at which every image leaves rows of padding."""
        first = min(len(self.inputs), 4)
        found = self.run(first)
        scores = found['scores'][found['labels'] >= 0]
        for limit in check.limits_of(scores):
            if self.run(first, limit)['num'].max() < found['scores'].shape[1]:
                return limit
        return float(scores.max(initial=0.0)) + 1.0  # nothing is left but padding

    def compare(
        self, runtime: Runtime, rows: int | Sequence[int], min_score: float
    ) -> check.Difference:
        """Compare a file with PyTorch on the first images, or on those of these numbers."""
        chosen = range(rows) if isinstance(rows, int) else rows
        found = runtime(np.stack([self.feeds[row] for row in chosen]))
        expected = self.run(rows, min_score)
        difference = check.compare(expected, found, self.metadata, max(self.size))
        # With a limit, rounding decides whether an image has a row at all.
        return difference if min_score == NO_LIMIT else difference._replace(highest=0.0)

    def parts(self) -> Iterator[tuple[str, list[Sequence[int]]]]:
        """Yield what is compared: its name, and the batches of it."""
        for batch in BATCHES:
            yield f'batch {batch}', [range(batch)]
        rest = range(max(BATCHES), len(self.inputs))
        if self.metadata.input == 'uint8' and len(rest):
            yield f'{len(rest)} of their own sizes', [[row] for row in rest]
        elif len(rest):
            yield f'{len(rest)} more images', [rest[n : n + 2] for n in range(0, len(rest), 2)]


def differences(
    load: Callable[[float], Runtime], reference: Reference, tell: Tell
) -> Iterator[tuple[str, check.Difference]]:
    """Compare a file with PyTorch: with rows of padding, then as it will be kept.

    Args:
        load: Writes the file with a least score of candidates and loads it.
        reference: PyTorch's side.
        tell: Gets a line for each comparison.

    Yields:
        What was compared, and how far it differs.
    """
    limits = [NO_LIMIT]
    if reference.metadata.end == 'postprocess':
        limits.insert(0, reference.limit_with_padding())
    for limit in limits:
        runtime = load(limit)
        for part, batches in reference.parts():
            name = part + (f', candidates > {limit:.3g}' if limit > NO_LIMIT else '')
            difference = check.Difference()
            for rows in batches:
                difference = difference.joined(reference.compare(runtime, rows, limit))
            tell(f'{name}: {difference.text(reference.metadata)}')
            yield name, difference
