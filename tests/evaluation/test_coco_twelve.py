"""The 12 COCO metrics: equal to the oracle's, over each image once, in the file's ids."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from forked import in_processes
from mmdet.registry import METRICS
from pycocotools.coco import COCO

from effdet_plugin.errors import DatasetError
from effdet_plugin.evaluation import NAMES, CocoTwelveMetric
from effdet_plugin.evaluation.coco_twelve import evaluate_results
from support import load_oracle

CLASSES = ('cat', 'dog', 'cow', 'hen', 'fox')


def _truth_file(folder: Path, truth: np.ndarray, ids: dict[str, int]) -> Path:
    """Write the oracle's ground truth, rows [y1, x1, y2, x2, crowd, area, class], as COCO json."""
    annotations: list[dict[str, Any]] = []
    for image_id, rows in enumerate(truth, start=1):
        for y1, x1, y2, x2, crowd, area, label in rows[rows[:, 6] >= 0].tolist():
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    iscrowd=int(crowd),
                    area=area if area > 0 else (x2 - x1) * (y2 - y1),
                    category_id=ids[CLASSES[int(label) - 1]],
                )
            )
    images = [
        dict(id=i + 1, width=640, height=640, file_name=f'{i}.jpg') for i in range(len(truth))
    ]
    path = folder / 'truth.json'
    categories = [dict(id=id_, name=name) for name, id_ in ids.items()]
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return path


def _sample(image_id: int, rows: np.ndarray) -> dict[str, Any]:
    """One image's detections, rows [image id, x, y, w, h, score, class], in mmdet's form."""
    found = torch.from_numpy(rows[rows[:, 5] > 0]).double()
    boxes = torch.cat([found[:, 1:3], found[:, 1:3] + found[:, 3:5]], dim=1)
    instances = dict(bboxes=boxes, scores=found[:, 5], labels=found[:, 6].long() - 1)
    return dict(img_id=image_id, ori_shape=(640, 640), pred_instances=instances, instances=[])


def _metric(path: Path, classes: tuple[str, ...] = CLASSES, **arguments: Any) -> CocoTwelveMetric:
    metric = METRICS.build(dict(type='CocoTwelveMetric', ann_file=str(path), **arguments))
    metric.dataset_meta = dict(classes=classes)
    return metric


IDS = dict(cat=1, dog=2, cow=3, hen=4, fox=5)
Oracle = Mapping[str, np.ndarray]


@pytest.fixture(scope='module')
def oracle() -> Oracle:
    return dict(load_oracle('coco_metric'))


def _detect_all(metric: CocoTwelveMetric, oracle: Oracle) -> None:
    for image_id, rows in enumerate(oracle['detections'], start=1):
        metric.process({}, [_sample(image_id, rows)])


def _numbers(result: Mapping[str, float]) -> list[float]:
    return [result[f'coco/bbox_{name}'] for name in NAMES]


def test_evaluate__oracle(tmp_path: Path, oracle: Oracle) -> None:
    metric = _metric(_truth_file(tmp_path, oracle['groundtruth'], IDS), classwise=True)
    _detect_all(metric, oracle)
    result = metric.evaluate(24)
    np.testing.assert_allclose(_numbers(result), oracle['metrics12'], rtol=0, atol=1e-6)
    per_class = [result[f'coco/{name}_precision'] for name in CLASSES]
    np.testing.assert_allclose(per_class, oracle['ap_per_class'], rtol=0, atol=1e-6)
    assert result['coco/images'] == 24


def test_evaluate__other_ids_and_a_class_that_the_file_has_not(
    tmp_path: Path, oracle: Oracle
) -> None:
    ids = dict(cat=7, dog=11, cow=12, hen=40, fox=90)
    path = _truth_file(tmp_path, oracle['groundtruth'], ids)
    metric = _metric(path, (*CLASSES, 'N/A'), results_file=str(tmp_path / 'out' / 'boxes.json'))
    _detect_all(metric, oracle)
    spare = np.array([[1, 0, 0, 50, 50, 0.9, 6]])
    metric.process({}, [_sample(1, spare)])
    np.testing.assert_allclose(
        _numbers(metric.evaluate(24)), oracle['metrics12'], rtol=0, atol=1e-6
    )
    rows = json.loads((tmp_path / 'out' / 'boxes.json').read_text())
    assert {row['category_id'] for row in rows} == set(ids.values())
    assert len(rows) == int((oracle['detections'][..., 5] > 0).sum())
    assert sorted(rows[0]) == ['bbox', 'category_id', 'image_id', 'score']
    assert [p.name for p in (tmp_path / 'out').iterdir()] == ['boxes.json']


def test_evaluate__each_image_once(tmp_path: Path, oracle: Oracle) -> None:
    metric = _metric(_truth_file(tmp_path, oracle['groundtruth'], IDS))
    _detect_all(metric, oracle)
    metric.process({}, [_sample(i + 1, oracle['detections'][i]) for i in (3, 4)])
    with patch('effdet_plugin.evaluation.coco_twelve.get_world_size', return_value=2):
        result = metric.evaluate(24)
    assert result['coco/images'] == 24
    np.testing.assert_allclose(_numbers(result), oracle['metrics12'], rtol=0, atol=1e-6)


def evaluate_share(truth: Path, detections: Path, out: Path) -> None:
    """Evaluate, as one of two, a share of unequal size that begins with an image of the other's."""
    torch.distributed.init_process_group('gloo')
    rank = torch.distributed.get_rank()
    metric = _metric(truth)
    everything = np.load(detections)
    for index in [23, *range(10)] if rank == 0 else range(9, len(everything)):
        metric.process({}, [_sample(index + 1, everything[index])])
    numbers = metric.evaluate(len(everything))
    Path(f'{out}.{rank}').write_text(json.dumps(numbers))


@pytest.mark.dist
def test_evaluate__two_processes_give_the_numbers_of_one(tmp_path: Path, oracle: Oracle) -> None:
    truth = _truth_file(tmp_path, oracle['groundtruth'], IDS)
    np.save(tmp_path / 'detections.npy', oracle['detections'])
    arguments = (truth, tmp_path / 'detections.npy', tmp_path / 'numbers')
    assert in_processes(2, evaluate_share, *arguments) == [0, 0]
    for rank in range(2):
        result = json.loads((tmp_path / f'numbers.{rank}').read_text())
        assert result['coco/images'] == 24
        np.testing.assert_allclose(_numbers(result), oracle['metrics12'], rtol=0, atol=1e-6)


def test_evaluate__truth_from_the_samples(tmp_path: Path) -> None:
    metric = METRICS.build(dict(type='CocoTwelveMetric'))
    metric.dataset_meta = dict(classes=('cat', 'dog'))
    sample = _sample(5, np.array([[5, 10, 10, 50, 50, 0.9, 2]]))
    sample['instances'] = [dict(bbox_label=1, bbox=[10, 10, 60, 60], ignore_flag=0)]
    metric.process({}, [sample, sample])
    result = metric.evaluate(1)
    assert result['coco/bbox_mAP'] == pytest.approx(1)
    assert result['coco/bbox_mAP_l'] == -1  # no large object
    assert result['coco/images'] == 1


def test_evaluate__nothing_found(tmp_path: Path, oracle: Oracle) -> None:
    metric = _metric(_truth_file(tmp_path, oracle['groundtruth'], IDS))
    metric.process({}, [_sample(i, np.zeros((3, 7))) for i in range(1, 25)])
    assert _numbers(metric.evaluate(24)) == [0.0] * 12


def test_evaluate__test_dev(tmp_path: Path, oracle: Oracle) -> None:
    """Two and three decimals in the file; no number is made up where there is no ground truth."""
    path = _truth_file(tmp_path, np.full_like(oracle['groundtruth'], -1), IDS)
    metric = _metric(path, results_file=str(tmp_path / 'dev.json'), test_dev_form=True)
    _detect_all(metric, oracle)
    result = metric.evaluate(24)
    assert _numbers(result) == [-1.0] * 12
    assert result['coco/images'] == 24
    rows = json.loads((tmp_path / 'dev.json').read_text())
    assert all(value == round(value, 2) for row in rows for value in row['bbox'])
    assert all(row['score'] == round(row['score'], 3) for row in rows)
    assert any(value != round(value, 1) for row in rows for value in row['bbox'])


def test_evaluate__annotations_without_area_and_iscrowd(tmp_path: Path) -> None:
    path = tmp_path / 'truth.json'
    truth = dict(
        images=[dict(id=1, width=9, height=9, file_name='a.jpg')],
        annotations=[dict(id=1, image_id=1, bbox=[1, 1, 40, 40], category_id=3)],
        categories=[dict(id=3, name='cat')],
    )
    path.write_text(json.dumps(truth))
    metric = _metric(path, ('cat',))
    metric.process({}, [_sample(1, np.array([[1, 1, 1, 40, 40, 0.5, 1]]))])
    assert metric.evaluate(1)['coco/bbox_mAP_m'] == pytest.approx(1)


def test_evaluate__categories_in_another_order(tmp_path: Path, oracle: Oracle) -> None:
    """They are found by name, wherever they stand in the file."""
    ids = dict(reversed(IDS.items()))
    metric = _metric(_truth_file(tmp_path, oracle['groundtruth'], ids))
    _detect_all(metric, oracle)
    np.testing.assert_allclose(
        _numbers(metric.evaluate(24)), oracle['metrics12'], rtol=0, atol=1e-6
    )


def test_evaluate__only_classes_of_the_model_count(tmp_path: Path, oracle: Oracle) -> None:
    """The file has five categories; the mean is over the two that the model knows."""
    path = _truth_file(tmp_path, oracle['groundtruth'], IDS)
    metric = _metric(path, ('dog', 'cat', 'N/A'), classwise=True)
    for image_id, rows in enumerate(oracle['detections'], start=1):
        found = rows[np.isin(rows[:, 6], (1, 2))]
        found[:, 6] = 3 - found[:, 6]
        metric.process({}, [_sample(image_id, found)])
    result = metric.evaluate(24)
    expected = oracle['ap_per_class'][:2]
    assert result['coco/bbox_mAP'] == pytest.approx(expected.mean(), abs=1e-6)
    per_class = {name for name in result if name.endswith('_precision')}
    assert per_class == {'coco/cat_precision', 'coco/dog_precision'}


def test_evaluate_results__all_categories_unless_some_are_given(
    tmp_path: Path, oracle: Oracle
) -> None:
    coco = COCO(str(_truth_file(tmp_path, oracle['groundtruth'], IDS)))
    images = sorted(coco.imgs)
    assert evaluate_results(coco, [], images).params.catIds == [1, 2, 3, 4, 5]
    assert evaluate_results(coco, [], images, [4, 2]).params.catIds == [2, 4]


def test_evaluate__classes_that_the_file_has_not(tmp_path: Path, oracle: Oracle) -> None:
    metric = _metric(_truth_file(tmp_path, oracle['groundtruth'], IDS), ('car', 'bus'))
    metric.process({}, [_sample(1, oracle['detections'][0])])
    with pytest.raises(DatasetError, match=r'none of the classes'):
        metric.evaluate(1)


def test_evaluate__image_that_the_file_has_not(tmp_path: Path, oracle: Oracle) -> None:
    metric = _metric(_truth_file(tmp_path, oracle['groundtruth'], IDS))
    metric.process({}, [_sample(99, oracle['detections'][1])])
    with pytest.raises(DatasetError, match='image id 99'):
        metric.evaluate(1)


@pytest.mark.parametrize('text', [None, '{"images": ['])
def test_init__file_that_cannot_be_read(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / 'truth.json'
    if text is not None:
        path.write_text(text)
    with pytest.raises(DatasetError, match=r'truth\.json'):
        _metric(path)
