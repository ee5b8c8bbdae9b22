"""The copy of a COCO json that mmdet or pycocotools would misread."""

from pathlib import Path
from typing import Any

import pytest
from layout_builder import coco, dump, save_images
from mmengine.config import Config
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from effdet_plugin.own_data import check_annotation_files, read_dataset

NAMES = ['0.png', '1.png', '2.png', '3.png']


def numbered_from(first: int) -> dict[str, Any]:
    """Eight boxes with ids from a number on, each with an outline of its own."""
    document = coco(NAMES)
    for place, annotation in enumerate(document['annotations'], start=first):
        annotation.update(id=place, segmentation=[[place, 1, 9, 1, 9, 9]])
    return document


def average_precision(path: Path) -> float:
    """AP of the boxes of a file as their own detections."""
    truth = COCO(str(path))
    boxes = truth.loadAnns(truth.getAnnIds())
    evaluation = COCOeval(truth, truth.loadRes([{**box, 'score': 0.9} for box in boxes]), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


@pytest.mark.parametrize('first', [0, 1])
def test_copy__the_box_of_id_0_is_found_by_an_evaluation(first: int, tmp_path: Path) -> None:
    """pycocotools marks a found box by its id, and 0 is its mark for none."""
    save_images(tmp_path, NAMES)
    dump(tmp_path / 'a.json', numbered_from(first))
    assert (average_precision(tmp_path / 'a.json') < 0.99) == (first == 0)
    source = dict(type='CocoDataset', data_root=str(tmp_path), ann_file='a.json')
    source |= dict(data_prefix=dict(img=''), metainfo=dict(classes=('circle', 'square')))
    cfg = Config(dict(model={}, train_dataloader=dict(dataset=source), work_dir=str(tmp_path)))
    checked = check_annotation_files(cfg)
    checked.write()
    assert len(checked.copies) == (first == 0)
    used = tmp_path / cfg.train_dataloader.dataset.ann_file
    assert average_precision(used) == pytest.approx(1)
    outlines = [box['segmentation'][0][0] for box in COCO(str(used)).anns.values()]
    assert sorted(outlines) == list(range(first, 8 + first))


def test_own_data__no_box_has_the_id_0(tmp_path: Path) -> None:
    save_images(tmp_path, NAMES)
    dump(tmp_path / 'a.json', numbered_from(0))
    ids = [number for image in read_dataset(tmp_path).train for number in image.annotation_ids]
    assert sorted(ids) == list(range(1, 9))
