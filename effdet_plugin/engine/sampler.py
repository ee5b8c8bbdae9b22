"""The order of an epoch's images, with the epoch that each is drawn for."""

import itertools
from collections.abc import Iterator
from typing import Any

from mmdet.registry import DATA_SAMPLERS
from mmengine.dataset import DefaultSampler


@DATA_SAMPLERS.register_module()
class EpochSampler(DefaultSampler):
    """mmengine's ``DefaultSampler``, but it yields ``(epoch, index)``.

    A persistent worker never learns the epoch from mmengine. With it (and the seed, which the
    sampler sets on the dataset) each image can be a function of (seed, epoch, index), which a
    resumed run repeats: the dataset must take such pairs, as ``EfficientDetDataset`` does. For
    training; an evaluation needs no more than ``DefaultSampler``.

    Args:
        dataset: Dataset to sample. Where its ``seed`` is None, it gets the sampler's.
        shuffle: Use an order that depends on seed and epoch.
        seed: The same in all processes; None means that they agree on a random one.
        round_up: Repeat some images so that all processes get the same number.
    """

    def __init__(
        self, dataset: Any, shuffle: bool = True, seed: int | None = None, round_up: bool = True
    ) -> None:
        super().__init__(dataset, shuffle, seed, round_up)
        self._unseeded = []
        # `num_batch_per_epoch` makes the Runner wrap the dataset in a slice of it.
        while hasattr(dataset, '__dict__'):
            if vars(dataset).get('seed', 0) is None:
                self._unseeded.append(dataset)
            dataset = vars(dataset).get('_dataset')
        self.reseed(self.seed)
        self._skipped = 0

    def skip(self, number: int) -> None:
        """Leave out the first items of the next epoch, which were trained before."""
        self._skipped = number

    def reseed(self, seed: int) -> None:
        """Change the seed of sampler and dataset; workers that are running do not learn it."""
        self.seed = seed
        for dataset in self._unseeded:
            dataset.seed = seed

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        first, self._skipped = self._skipped, 0
        for index in itertools.islice(super().__iter__(), first, None):
            yield epoch, index
