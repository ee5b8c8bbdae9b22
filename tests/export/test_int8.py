"""Integer files: which part of a graph is quantised, and how such a file is judged."""

from typing import Any

import numpy as np
import pytest

from effdet_plugin.errors import ConfigError
from effdet_plugin.export import check
from effdet_plugin.export.api import Options
from effdet_plugin.export.int8 import between_convolutions
from effdet_plugin.export.metadata import Metadata


def metadata(precision: str, end: str = 'postprocess') -> Metadata:
    return Metadata(
        'onnx', ('a', 'b'), (64, 64), (1.0,) * 3, (1.0,) * 3, 0.0, 'letterbox', 'uint8',
        end, {}, 'float', precision, '1', '', '{}',
    )  # fmt: skip


def test_network__is_what_lies_between_convolutions() -> None:
    reads: dict[str, list[str]] = {
        'resize': [], 'scale': ['resize'], 'conv1': ['scale'], 'relu': ['conv1'],
        'conv2': ['relu'], 'size': [], 'add': ['conv1', 'conv2', 'size'], 'conv3': ['add'],
        'sigmoid': ['conv3'], 'boxes': ['conv3', 'conv2'], 'nms': ['sigmoid', 'boxes'],
    }  # fmt: skip
    found = between_convolutions(list(reads), reads.__getitem__, lambda n: n.startswith('conv'))
    assert found == {'conv1', 'relu', 'conv2', 'add', 'conv3'}


def detections(boxes: list[list[float]], scores: list[float]) -> dict[str, Any]:
    number = len(boxes)
    arrays = {
        'boxes': np.zeros((1, 12, 4), np.float32),
        'scores': np.zeros((1, 12), np.float32),
        'labels': np.full((1, 12), -1),
        'num': np.array([number]),
    }
    arrays['boxes'][0, :number] = np.reshape(boxes, (number, 4))
    arrays['scores'][0, :number] = scores
    arrays['labels'][0, :number] = 0
    return arrays


def test_check__of_int8_looks_for_overlapping_detections_of_score_03() -> None:
    boxes = [[0.0, 0.0, 20.0, 20.0], [30.0, 30.0, 60.0, 60.0]]
    moved = [[3.0, 1.0, 23.0, 21.0], [30.0, 30.0, 60.0, 60.0]]
    expected, found = detections(boxes, [0.9, 0.2]), detections(moved, [0.8, 0.1])
    strict, loose = (check.compare(expected, found, metadata(p), 64) for p in ('fp32', 'int8'))
    assert (strict.expected, strict.matched) == (2, 0.5)
    assert (loose.expected, loose.matched) == (1, 1.0)
    assert 'of score >= 0.3, 100.0% found again' in loose.text(metadata('int8'))
    lost = detections([[40.0, 0.0, 60.0, 20.0]], [0.8])
    assert check.compare(expected, lost, metadata('int8'), 64).matched == 0


@pytest.mark.parametrize(('score', 'fails'), [(0.0100001, False), (0.02, True), (None, True)])
def test_check__without_a_detection_compares_the_highest_score(
    score: float | None, fails: bool
) -> None:
    expected = detections([[0.0, 0.0, 20.0, 20.0]], [0.01])
    found = detections([], []) if score is None else detections([[9.0, 9.0, 20.0, 20.0]], [score])
    difference = check.compare(expected, found, metadata('fp32'), 64)
    assert (difference.expected, difference.highest > 0.01) == (0, fails)
    assert ('highest' in check.failures(difference, metadata('fp32'))) == fails
    assert 'no detection of score >= 0.05' in difference.text(metadata('fp32'))


def test_check__of_int8_compares_scores_not_logits() -> None:
    """A score of 8 bits has no logit below -6.2."""
    expected = {
        'logits': np.array([[[-11.0], [-5.0], [2.0]]], np.float32),
        'deltas': np.ones((1, 3, 4), np.float32),
    }
    found = {**expected, 'logits': np.maximum(expected['logits'], -6.2)}
    known = {name: metadata(name, end='raw') for name in ('fp32', 'int8')}
    strict, loose = (check.compare(expected, found, one, 64) for one in known.values())
    assert strict.raw == pytest.approx(4.8 / 11)
    assert (loose.expected, loose.matched, loose.raw) == (1, 1.0, 0.0)
    assert 'value, 100.0% of 1 scores >= 0.3 within 0.4' in loose.text(known['int8'])
    wrong = check.compare(expected, {**expected, 'logits': -expected['logits']}, known['int8'], 64)
    assert (wrong.expected, wrong.matched) == (3, 0.0)
    assert 'matched' in check.failures(wrong, known['int8'])
    nothing = {**expected, 'logits': np.full((1, 3, 1), -9, np.float32)}
    for one in (expected, nothing):
        moved = check.compare(one, {**one, 'deltas': -one['deltas']}, known['int8'], 64)
        assert 'raw' in check.failures(moved, known['int8'])


@pytest.mark.parametrize(
    ('expected', 'matched', 'fails'),
    [(8, 0.75, False), (8, 0.6, True), (100, 0.95, False), (100, 0.88, True), (0, 1.0, False)],
)
def test_check__a_share_of_few_detections_allows_two(
    expected: int, matched: float, fails: bool
) -> None:
    difference = check.Difference(expected, matched)
    assert bool(check.failures(difference, metadata('int8'))) == fails
    assert bool(check.failures(difference, metadata('fp32'))) == (matched < 1)


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(format='pt2', precision='int8'), '--precision int8: choose one of pt2 of fp32, fp16'),
        (dict(format='tensorrt', precision='fp16'), '--precision fp16: choose one of tensorrt'),
        (dict(format='onnx', precision='int4'), '--precision int4'),
        (dict(format='tensorrt', input='uint8'), '--input uint8: not with --format tensorrt'),
        (dict(input='uint8', dynamic=True, end='raw'), '--input uint8: not with --dynamic'),
        (dict(input='bytes'), '--input bytes: choose one of float, uint8'),
    ],
)
def test_options__that_do_not_go_together(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Options(**options).check()
