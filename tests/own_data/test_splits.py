"""A validation split is made the same way everywhere, and takes no class out of training."""

from pathlib import Path

import numpy as np
import pytest

from effdet_plugin.own_data import DatasetDescription, Image, Split, with_validation


def _image(name: str, labels: list[int], number: int = 1) -> Image:
    count = len(labels)
    return Image(
        id=number,
        path=Path('/data') / name,
        width=64,
        height=64,
        boxes=np.tile([1.0, 1.0, 9.0, 9.0], (count, 1)).reshape(count, 4),
        labels=np.array(labels, dtype=np.int64),
        crowd=np.zeros(count, dtype=bool),
        difficult=np.zeros(count, dtype=bool),
        annotation_ids=np.arange(count),
        areas=np.full(count, 64.0),
    )


def _description(images: list[Image], val: Split | None = None) -> DatasetDescription:
    splits = {'train': Split(images), 'val': val}
    return DatasetDescription(Path('/data'), 'COCO', ('a', 'b'), splits)


def _names(split: Split | None) -> list[str]:
    return [image.path.name for image in split or []]


def test_with_validation__depends_on_names_alone() -> None:
    images = [_image(f'{number}.jpg', [0, 1]) for number in range(50)]
    there = with_validation(_description(images))
    here = with_validation(_description(images[::-1]))
    assert len(there.splits['val'] or []) == 10
    assert len(there.train) == 40
    assert sorted(_names(there.splits['val'])) == sorted(_names(here.splits['val']))
    assert not set(_names(there.train)) & set(_names(there.splits['val']))
    other = with_validation(_description(images), seed=1)
    assert _names(other.splits['val']) != _names(there.splits['val'])
    assert any('10 of 50' in remark for remark in there.remarks())


def test_with_validation__keeps_the_given_split() -> None:
    description = _description([_image('0.jpg', [0])], Split([_image('1.jpg', [0])]))
    assert with_validation(description) is description


@pytest.mark.parametrize('rare', range(10))
def test_with_validation__every_class_stays_in_training(rare: int) -> None:
    images = [_image(f'{number}.jpg', [int(number == rare)]) for number in range(10)]
    split = with_validation(_description(images), fraction=0.5)
    assert split.train.class_counts(2).all()
    assert len(split.splits['val'] or []) == 5


def test_with_validation__has_a_box_if_one_can_be_spared() -> None:
    images = [_image(f'{number}.jpg', [0] if number < 3 else []) for number in range(30)]
    split = with_validation(_description(images), fraction=0.05)
    val = split.splits['val']
    assert val is not None
    assert val.num_targets >= 1


def test_with_validation__copies_of_one_image_stay_together() -> None:
    names = [f'{stem}_jpg.rf.{copy}0a1b.jpg' for stem in range(20) for copy in range(3)]
    split = with_validation(_description([_image(name, [0, 1]) for name in names]))
    stems = [{name.split('.rf.')[0] for name in _names(split.splits[key])} for key in split.splits]
    assert not stems[0] & stems[1]
    assert stems[1]


def test_with_validation__each_image_the_last_of_its_class() -> None:
    split = with_validation(_description([_image('0.jpg', [0]), _image('1.jpg', [1])]))
    assert len(split.train) == len(split.splits['val'] or []) == 1


def test_with_validation__a_single_image_is_used_twice_and_said() -> None:
    split = with_validation(_description([_image('0.jpg', [0])]))
    assert _names(split.train) == _names(split.splits['val']) == ['0.jpg']
    assert [finding.kind for finding in split.findings] == ['split_made']
