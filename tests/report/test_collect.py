"""The facts of a small evaluation, by hand; detections through a file."""

from pathlib import Path

import numpy as np
import pytest
from small_truth import CLASSES, IDS

from effdet_plugin.evaluation.coco_twelve import Evaluated, evaluate_results
from effdet_plugin.report import Detections, Facts, collect


def test_facts__by_hand(facts: Facts) -> None:
    cat, dog, bird = facts.classes
    assert (cat.boxes, dog.boxes, bird.boxes) == (2, 1, 0)
    # Cats: right, wrong, right at scores .9, .8, .7: precision 1 up to recall 1/2, then 2/3.
    assert cat.ap50 == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert dog.ap50 == 0
    assert bird.ap == -1
    assert cat.cut == pytest.approx((0.7, 0.8, 2 / 3, 1.0), abs=2e-3)
    assert facts.cut.threshold == pytest.approx(0.7, abs=2e-3)
    # Rows: is; columns: detected as; the last is background.
    assert facts.confusion.tolist() == [[2, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert facts.calibration.counts.sum() == 4, 'that of the crowd does not count'
    assert [(one.file, one.mistakes) for one in facts.worst(5)] == [('a<i>.png', 1)]
    assert [one.name for one in facts.scored()] == [CLASSES[0], CLASSES[1]]
    assert (facts.precision[:, 2] == -1).all()


def test_facts__are_coco_s_own(facts: Facts, evaluated: Evaluated) -> None:
    own = evaluate_results(evaluated.coco, evaluated.results, evaluated.image_ids, [4, 9])
    assert list(facts.metrics.values()) == pytest.approx(list(own.stats))
    assert np.mean([one.ap for one in facts.scored()]) == pytest.approx(facts.metrics['mAP'])
    assert np.mean([one.ap50 for one in facts.scored()]) == pytest.approx(facts.metrics['mAP_50'])


def test_facts__of_some_of_the_images(evaluated: Evaluated) -> None:
    some = evaluated._replace(image_ids=[10], results=evaluated.results[:1])
    facts = collect(some.coco, Detections.of(some), CLASSES, IDS)
    assert [one.file for one in facts.images] == ['a<i>.png']
    assert facts.classes[0].ap == pytest.approx(1)
    assert facts.images[0].missed == 1


def test_facts__without_a_detection(evaluated: Evaluated) -> None:
    facts = collect(evaluated.coco, Detections.of(evaluated._replace(results=[])), CLASSES, IDS)
    assert facts.metrics['mAP'] == 0
    assert facts.cut.f1 == 0
    assert sum(one.missed for one in facts.images) == 3


def test_detections__through_a_file(evaluated: Evaluated, tmp_path: Path) -> None:
    found = Detections.of(evaluated)
    found.save(tmp_path / 'best.npz', 7, 0.25)
    again, epoch, ap = Detections.load(tmp_path / 'best.npz') or pytest.fail('cannot be read')
    assert (epoch, ap) == (7, 0.25)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    back = again.results(evaluated.coco, IDS)
    assert [one['image_id'] for one in back] == [10, 10, 11, 11, 12]
    assert back[2]['bbox'] == [10, 10, 50, 49]
    (tmp_path / 'best.npz').write_bytes(b'PK damaged')
    assert Detections.load(tmp_path / 'best.npz') is None
    assert Detections.load(tmp_path / 'absent.npz') is None
