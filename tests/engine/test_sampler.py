"""The sampler: mmengine's order, the epoch beside it, and the seed for the data set."""

from typing import Any

import pytest
from mmengine.dataset import DefaultSampler
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset

from effdet_plugin.engine.sampler import EpochSampler


class Pairs(Dataset):
    """Returns what it was asked for, and its seed."""

    def __init__(self, length: int = 7, seed: int | None = None) -> None:
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: tuple[int, int]) -> tuple[tuple[int, int], int | None]:
        return index, self.seed


@pytest.mark.parametrize('shuffle', [True, False])
def test_iter__mmengines_order_with_the_epoch(shuffle: bool) -> None:
    sampler = EpochSampler(Pairs(), shuffle=shuffle, seed=3)
    plain = DefaultSampler(Pairs(), shuffle=shuffle, seed=3)
    for epoch in (0, 4):
        sampler.set_epoch(epoch)
        plain.set_epoch(epoch)
        assert list(sampler) == [(epoch, index) for index in plain]


@pytest.mark.parametrize('workers', [0, 2])
def test_loader__workers_that_live_on_learn_the_epoch(workers: int) -> None:
    dataset = Pairs()
    sampler = EpochSampler(dataset, seed=3)
    settings = {'num_workers': workers, 'persistent_workers': workers > 0, 'collate_fn': list}
    loader: DataLoader[Any] = DataLoader(dataset, 2, sampler=sampler, **settings)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        samples = [sample for batch in loader for sample in batch]
        assert {index[0] for index, _ in samples} == {epoch}
        assert sorted(index[1] for index, _ in samples) == list(range(7))
        assert {seed for _, seed in samples} == {3}


@pytest.mark.parametrize(('own', 'expected'), [(None, 5), (11, 11)])
def test_seed__goes_to_a_dataset_that_has_none(own: int | None, expected: int) -> None:
    dataset = Pairs(seed=own)
    sampler = EpochSampler(dataset, seed=3)
    sampler.reseed(5)
    assert sampler.seed == 5
    assert dataset.seed == expected


def test_seed__reaches_through_the_runners_slice() -> None:
    loader = Runner.build_dataloader(
        {
            'dataset': Pairs(),
            'sampler': {'type': 'mmdet.EpochSampler'},
            'batch_size': 2,
            'num_batch_per_epoch': 2,
        },
        seed=9,
    )
    assert loader.dataset._dataset.seed == 9
    assert sum(len(batch[0][0]) for batch in loader) == 4
