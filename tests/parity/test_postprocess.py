"""From given level outputs to detections, in every form that is ours.

Not ours are the reference's numpy forms (``pyfunc_*``: areas with + 1, linear and DIoU decay) and
its graph's stand-in for the TFLite op (``tflite_*``); what that op returns is compared.
"""

from typing import Any

import pytest
import torch
from ladder import difference, nchw, swap, swap_channels
from mmdet.structures.bbox import bbox_flip
from mmengine.structures import InstanceData
from torch import Tensor

import support
from effdet_plugin.models import DetectionPostProcessor, EfficientDetHead
from effdet_plugin.ops import anchor_boxes

ARRAYS = support.load_oracle('postprocess')
HEIGHT, WIDTH = ARRAYS['size_hw'].tolist()
SCALES = torch.from_numpy(ARRAYS['image_scales'])
SCORE_LIMIT = 1e-6
BOX_LIMIT = 1e-3  # pixels, of boxes of up to 400 px
CANDIDATES = {90: 5000, 7: 1000}

GLOBAL = dict(nms_pre=0, class_wise=False, clip='after')
PER_CLASS = dict(nms_pre=0, class_wise=True)
FORMS: dict[str, dict[str, Any]] = {
    'global_default': GLOBAL,
    'global_noscale': GLOBAL,
    'global_hard': dict(GLOBAL, method='hard'),
    'global_hard_iou03_score02': dict(GLOBAL, method='hard', iou_thr=0.3, score_thr=0.2),
    'global_gauss_topk': GLOBAL,
    'global_gauss_sigma1_score01': dict(GLOBAL, sigma=1.0, score_thr=0.1, max_per_img=30),
    'perclass_default': PER_CLASS,
    'perclass_gauss_topk': PER_CLASS,
    'perclass_hard_topk': dict(PER_CLASS, method='hard'),
    # Every pair of anchor and class is a candidate.
    'combined_hard': dict(nms_pre=10**9, method='hard', clip='after'),
}


def level_outputs(num_classes: int) -> tuple[list[Tensor], list[Tensor]]:
    """Class logits and codes of each level, as the head gives them."""
    make = support.recipe().normalish
    logits, codes = [], []
    for level in range(3, 8):
        cells = (2, HEIGHT >> level, WIDTH >> level)
        logits.append(nchw(make(f'pp:class{level}', (*cells, 9 * num_classes), 1.6, -5)))
        codes.append(swap_channels(nchw(make(f'pp:box{level}', (*cells, 36), 0.35))))
    return logits, codes


def head(num_classes: int, **postprocessor: Any) -> EfficientDetHead:
    postprocessor = dict(type='DetectionPostProcessor', **postprocessor)
    return EfficientDetHead(num_classes, 8, postprocessor=postprocessor)


def predict(num_classes: int, scales: Tensor, **postprocessor: Any) -> list[InstanceData]:
    """Detections in pixels of the original images, which were scaled by 1 / ``scales``."""
    metas = [
        {'batch_input_shape': (HEIGHT, WIDTH), 'scale_factor': (1 / float(s), 1 / float(s))}
        for s in scales
    ]
    parts = head(num_classes, **postprocessor)
    return parts.predict_by_feat(*level_outputs(num_classes), batch_img_metas=metas, rescale=True)


def settings(form: str, num_classes: int) -> dict[str, Any]:
    top = {'nms_pre': CANDIDATES[num_classes]} if form.endswith('topk') else {}
    return {**FORMS[form], **top}


def check(own: InstanceData, boxes: Tensor, scores: Tensor, labels: Tensor) -> None:
    """The same detections; of equal scores in any order.

    Args:
        own: Ours.
        boxes: ``(n, 4)`` x first.
        scores: ``(n,)`` descending.
        labels: ``(n,)`` 0-based.
    """
    assert len(own) == len(scores)
    torch.testing.assert_close(own.scores, scores, rtol=0, atol=SCORE_LIMIT)
    near_score = (own.scores[:, None] - scores).abs() < SCORE_LIMIT
    near_box = (own.bboxes[:, None] - boxes).abs().amax(-1) < BOX_LIMIT
    same = near_score & near_box & (own.labels[:, None] == labels)
    assert same.any(0).all(), scores[~same.any(0)]
    assert same.any(1).all(), own.scores[~same.any(1)]


@pytest.mark.parametrize('num_classes', CANDIDATES)
@pytest.mark.parametrize('form', FORMS)
def test_detections__every_form(form: str, num_classes: int) -> None:
    scales = torch.ones(2) if form == 'global_noscale' else SCALES
    found = predict(num_classes, scales, **settings(form, num_classes))
    key = f'c{num_classes}_{form}'
    for image, own in enumerate(found):
        count = int(ARRAYS[f'{key}_len'][image])
        boxes, scores, classes = (
            torch.from_numpy(ARRAYS[f'{key}_{part}'][image, :count])
            for part in ('boxes', 'scores', 'classes')
        )
        check(own, swap(boxes), scores, classes.long() - 1)


@pytest.mark.parametrize('num_classes', CANDIDATES)
@pytest.mark.parametrize('kind', ['perclass', 'xywh', 'flip'])
def test_rows__for_evaluation(kind: str, num_classes: int) -> None:
    found = predict(num_classes, SCALES, **settings('perclass_default', num_classes))
    for own, rows, scale in zip(
        found, ARRAYS[f'c{num_classes}_detections_{kind}'], SCALES, strict=True
    ):
        boxes = torch.from_numpy(rows[:, 1:5]).clone()
        if kind == 'xywh':
            boxes[:, 2:] += boxes[:, :2]
        if kind == 'flip':
            own.bboxes = bbox_flip(own.bboxes, (HEIGHT * float(scale), WIDTH * float(scale)))
        check(own, boxes, torch.from_numpy(rows[:, 5]), torch.from_numpy(rows[:, 6]).long() - 1)


@pytest.mark.parametrize('num_classes', CANDIDATES)
def test_candidates__best_fifty(num_classes: int) -> None:
    parts = head(num_classes, nms_pre=50)
    metas = [{'batch_input_shape': (HEIGHT, WIDTH)}] * 2
    found = parts.predict_by_feat(
        *level_outputs(num_classes), batch_img_metas=metas, with_nms=False
    )
    key = f'c{num_classes}_prenms50'
    for image, own in enumerate(found):
        boxes, scores, labels = (
            torch.from_numpy(ARRAYS[f'{key}_{part}'][image])
            for part in ('boxes', 'scores', 'classes')
        )
        check(own, swap(boxes), scores, labels)


@pytest.mark.parametrize('form', ['default', 'thresh'])
def test_tflite__detections_of_the_runtimes_own_op(form: str) -> None:
    arrays = support.load_oracle('postprocess_tflite')
    num_classes = int(arrays['num_classes'])
    limits = {} if form == 'default' else dict(iou_thr=0.3, score_thr=0.2)
    parts = head(num_classes, **{**GLOBAL, 'clip': 'none'}, method='hard', **limits)
    logits, codes = level_outputs(num_classes)
    found = parts.postprocessor(
        parts.flatten(logits, num_classes),
        parts.flatten(codes, 4),
        anchor_boxes((HEIGHT, WIDTH)),
        (HEIGHT, WIDTH),
    )
    count = int(arrays[f'{form}_count'][0])
    assert found.num[0] == count  # rows beyond hold what was there before
    own = InstanceData(
        bboxes=found.boxes[0, :count],
        scores=found.scores[0, :count],
        labels=found.labels[0, :count],
    )
    size = torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])
    boxes = swap(torch.from_numpy(arrays[f'{form}_boxes'][0, :count])) * size
    scores, labels = (
        torch.from_numpy(arrays[f'{form}_{part}'][0, :count]) for part in ('scores', 'classes')
    )
    check(own, boxes, scores, labels.long())


@pytest.mark.parametrize('num_classes', CANDIDATES)
def test_tflite__inputs_of_the_op(num_classes: int) -> None:
    logits, _ = level_outputs(num_classes)
    scores = head(num_classes).flatten(logits, num_classes)[:1].sigmoid()
    assert difference(ARRAYS, f'c{num_classes}_tflite_scores', scores) < 1e-6
    corners = swap(anchor_boxes((HEIGHT, WIDTH))) / torch.tensor([HEIGHT, WIDTH, HEIGHT, WIDTH])
    low, high = corners.split(2, dim=-1)
    centred = torch.cat([(low + high) / 2, high - low], dim=-1)
    assert difference(ARRAYS, f'c{num_classes}_tflite_anchors', centred) < 1e-6


def test_forms__none_is_left_out() -> None:
    stored = {name.split('_', 1)[1].removesuffix('_len') for name in ARRAYS if 'len' in name}
    assert stored == FORMS.keys()


def test_processor__default_is_the_references_evaluation() -> None:
    processor = DetectionPostProcessor()
    assert (processor.nms_pre, processor.clip) == (5000, 'none')
    assert (
        processor.nms.keywords.items()
        >= dict(method='gaussian', sigma=0.5, class_wise=True, score_thr=0.001).items()
    )
