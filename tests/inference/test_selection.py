"""Which detections are kept."""

from typing import Any

import pytest
import torch
from mmengine.structures import InstanceData

from effdet_plugin.errors import ConfigError
from effdet_plugin.inference.selection import Selection

NAMES = ('person', 'Person', 'traffic light', '3', 'dog')


@pytest.mark.parametrize(
    ('classes', 'labels'),
    [
        (None, None),
        (['dog', 'person'], [4, 0]),
        ('dog', [4]),
        (['Person'], [1]),
        (['DOG'], [4]),
        ([2], [2]),
        (['2'], [2]),
        (['3'], [3]),  # a name before a label
    ],
)
def test_labels(classes: Any, labels: list[int] | None) -> None:
    assert Selection(classes=classes).labels(NAMES) == labels


@pytest.mark.parametrize(
    ('classes', 'words'),
    [
        (['trafic light'], "did you mean 'traffic light'"),
        (['PERSON'], 'did you mean'),
        ([5], 'it knows person, Person'),
        ([-1], 'no such class'),
        (['zebra'], 'it knows'),
        ([], 'empty'),
    ],
)
def test_labels__unknown_classes(classes: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Selection(classes=classes).labels(NAMES)


def test_selection__keeps_the_best_of_the_chosen_classes() -> None:
    found = InstanceData(
        bboxes=torch.arange(20.0).reshape(5, 4),
        scores=torch.tensor([0.9, 0.8, 0.7, 0.6, 0.1]),
        labels=torch.tensor([1, 0, 0, 0, 0]),
    )
    kept = Selection(0.2, ['person'], 2)(found, [0])
    assert kept.scores.tolist() == pytest.approx([0.8, 0.7])
    assert kept.bboxes[:, 0].tolist() == [4, 8]
    assert len(Selection()(found, None)) == 5


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        ({'score_thr': 25}, '25 % is 0.25'),
        ({'score_thr': -0.1}, 'from 0 to 1'),
        ({'score_thr': float('nan')}, 'from 0 to 1'),
        ({'max_per_img': 0}, 'at least 1'),
        ({'max_per_img': 2.5}, 'whole number'),
        ({'score_thr': '0.3'}, 'give a number from 0 to 1'),
    ],
)
def test_selection__refuses(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Selection(**arguments)
