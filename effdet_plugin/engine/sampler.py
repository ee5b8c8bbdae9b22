"""A sampler that tells the epoch with each index."""

from collections.abc import Iterator
from typing import Any

from mmdet.registry import DATA_SAMPLERS
from mmengine.dataset import DefaultSampler


@DATA_SAMPLERS.register_module()
class EpochSampler(DefaultSampler):
    """mmengine's ``DefaultSampler``, but it yields ``(epoch, index)``.

    A worker that lives on between epochs never learns the epoch from mmengine. With it (and the
    seed, which is handed to the data set) each picture can be made a function of (seed, epoch,
    index), which a resumed run repeats: the data set must take such pairs, as
    ``EfficientDetDataset`` does. For training; an evaluation needs no more than ``DefaultSampler``.

    Args:
        dataset: Data set to draw from. Where it has a ``seed`` that is None, it gets the sampler's.
        shuffle: Draw in an order that depends on seed and epoch.
        seed: The same in all processes; None means that they agree on a random one.
        round_up: Repeat some images so that all processes get the same number.
    """

    def __init__(
        self, dataset: Any, shuffle: bool = True, seed: int | None = None, round_up: bool = True
    ) -> None:
        super().__init__(dataset, shuffle, seed, round_up)
        self._unseeded = [part for part in _layers(dataset) if vars(part).get('seed', 0) is None]
        self.reseed(self.seed)

    def reseed(self, seed: int) -> None:
        """Draw as a sampler of another seed would; workers that are running do not learn it."""
        self.seed = seed
        for part in self._unseeded:
            part.seed = seed

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        for index in super().__iter__():
            yield epoch, index


def _layers(dataset: Any) -> Iterator[Any]:
    """Yield a data set and what the Runner's ``num_batch_per_epoch`` has wrapped around."""
    while hasattr(dataset, '__dict__'):
        yield dataset
        dataset = vars(dataset).get('_dataset')
