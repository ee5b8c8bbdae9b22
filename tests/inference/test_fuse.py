import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effdet_plugin.errors import ConfigError, DatasetError
from effdet_plugin.inference.fuse import evaluate_files, fuse_files, fuse_results, read_truth
from support import load_oracle

Row = dict[str, Any]
TRUTH: Row = dict(
    images=[dict(id=1, file_name='1.jpg', width=64, height=64)],
    annotations=[dict(id=1, image_id=1, category_id=1, bbox=[5, 5, 20, 20], area=400, iscrowd=0)],
    categories=[dict(id=1, name='a')],
)


def row(image: Any, box: list[Any], score: Any, category: Any = 1) -> Row:
    return dict(image_id=image, category_id=category, bbox=box, score=score)


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_fuse_results__equals_the_reference() -> None:
    oracle = load_oracle('wbf')
    rows, expected = oracle['in_b'], oracle['out_b']
    own = [
        row(
            int(r[0]), [*map(float, (r[1], r[2], r[3] - r[1], r[4] - r[2]))], float(r[5]), int(r[6])
        )
        for r in rows
    ]
    fused = fuse_results([own[0::3], own[1::3], own[2::3]])
    boxes = np.array([f['bbox'] for f in fused])
    boxes[:, 2:] += boxes[:, :2]
    np.testing.assert_allclose(boxes, expected[:, 1:5], atol=1e-4)
    assert [f['category_id'] for f in fused] == expected[:, 6].tolist()


def test_fuse_files__images_apart_and_the_best_only(tmp_path: Path) -> None:
    a = [row(1, [0, 0, 10, 10], 0.9), row(2, [0, 0, 10, 10], 0.8), row(2, [50, 50, 9, 9], 0.3)]
    b = [row(1, [0, 0, 10, 10], 0.7)]
    paths = [write(tmp_path / 'a.json', a), write(tmp_path / 'b.json', b)]
    assert fuse_files(paths, tmp_path / 'out' / 'fused.json', max_per_img=1) == 2
    fused = json.loads((tmp_path / 'out' / 'fused.json').read_text())
    assert [f['image_id'] for f in fused] == [1, 2]
    assert [f['score'] for f in fused] == pytest.approx([0.8, 0.4])


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ({'images': []}, 'tools/test.py --out'),
        ([dict(image_id=1, category_id=1, score=0.5)], "detection 0 .*'bbox'"),
        ([row(7, [0, 0, 1, 1], 0.5)], 'image_id 7 and 1'),
        ([row(1, [0, 0, 1, 1], 0.5, category=2)], 'category_id 2 and 1'),
        ([row(1, [0, 0, 1, 1], '0.9')], "detection 0: 'score' .*'0.9'"),
        ([row(1, [0, 0, 1, 1], float('nan'))], "'score' .*nan"),
        ([row(1, [0, 0, 1], 0.5)], r"'bbox' .*\[0, 0, 1\]"),
        ([row(1, [0, 0, 1, None], 0.5)], "'bbox' .*None"),
        ([row(1, [0, 0, 1, float('inf')], 0.5)], "'bbox' .*inf"),
        ([row(1, [0, 0, 1, 1], 0.5, category='cat')], "'category_id' .*'cat'"),
        ([row([1], [0, 0, 1, 1], 0.5)], r"'image_id' .*\[1\]"),
    ],
)
def test_fuse_files__refuses_other_files(tmp_path: Path, content: object, words: str) -> None:
    good = write(tmp_path / 'good.json', [row(1, [0, 0, 10, 10], 0.9)])
    bad = write(tmp_path / 'bad.json', content)
    with pytest.raises(DatasetError, match=rf'bad\.json.*{words}'):
        fuse_files([good, bad], tmp_path / 'fused.json')


def test_fuse_files__an_empty_first_file_hides_no_misfit(tmp_path: Path) -> None:
    contents = ([], [row(1, [0, 0, 9, 9], 0.9)], [row(7, [0, 0, 9, 9], 0.9)])
    paths = [write(tmp_path / f'{n}.json', content) for n, content in enumerate(contents)]
    assert fuse_files(paths[:2], tmp_path / 'fused.json') == 1
    with pytest.raises(DatasetError, match=r'2\.json.*1\.json.*image_id 7 and 1'):
        fuse_files(paths, tmp_path / 'fused.json')


@pytest.mark.parametrize('threshold', [55, 0, -0.5, 1.01, float('nan')])
def test_fuse__refuses_a_threshold_that_is_no_iou(tmp_path: Path, threshold: float) -> None:
    paths = [write(tmp_path / f'{name}.json', [row(1, [0, 0, 9, 9], 0.9)]) for name in 'ab']
    with pytest.raises(ConfigError, match=f'--iou-thr.* {threshold}'):
        fuse_files(paths, tmp_path / 'fused.json', threshold)
    with pytest.raises(ConfigError, match='--iou-thr'):
        fuse_results([[], []], threshold)
    assert fuse_files(paths, tmp_path / 'fused.json', 1) == 1


def test_fuse_files__refuses_one_alone(tmp_path: Path) -> None:
    alone = write(tmp_path / 'a.json', [row(1, [0, 0, 9, 9], 0.9)])
    with pytest.raises(ConfigError, match=r'a\.json'):
        fuse_files([alone], tmp_path / 'fused.json')


@pytest.mark.parametrize(
    ('foreign', 'words'),
    [
        (row(7, [0, 0, 9, 9], 0.9), 'image_id 7'),
        (row('1', [0, 0, 9, 9], 0.9), "image_id '1'"),
        (row(1, [0, 0, 9, 9], 0.9, category=3), 'category_id 3'),
    ],
)
def test_truth__must_have_what_the_rows_name(tmp_path: Path, foreign: Row, words: str) -> None:
    truth = read_truth(write(tmp_path / 'truth.json', TRUTH))
    good = write(tmp_path / 'good.json', [row(1, [0, 0, 9, 9], 0.9)])
    bad = write(tmp_path / 'bad.json', [row(1, [0, 0, 9, 9], 0.9), foreign, foreign])
    with pytest.raises(DatasetError, match=rf'bad\.json: {words} .*\(1 such\)'):
        fuse_files([good, bad], tmp_path / 'fused.json', truth=truth)
    assert not (tmp_path / 'fused.json').exists()
    with pytest.raises(DatasetError, match=rf'bad\.json: {words} '):
        list(evaluate_files(truth, [bad]))


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ([row(1, [0, 0, 9, 9], 0.9)], 'categories'),
        (dict(images=[]), 'categories'),
        (TRUTH | dict(annotations=[dict(image_id=1, segments_info=[])]), "KeyError.'id'"),
    ],
)
def test_read_truth__refuses_what_is_none(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(DatasetError, match=rf'other\.json: .*{words}'):
        read_truth(write(tmp_path / 'other.json', content))


def test_evaluate_files__gives_the_12_numbers_of_each(tmp_path: Path) -> None:
    results = [
        write(tmp_path / 'right.json', [row(1, [5, 5, 20, 20], 0.9)]),
        write(tmp_path / 'wrong.json', [row(1, [40, 40, 20, 20], 0.9)]),
    ]
    truth = read_truth(write(tmp_path / 'truth.json', TRUTH))
    numbers = dict(evaluate_files(truth, results))
    assert numbers[results[0]]['mAP'] == pytest.approx(1.0)
    assert numbers[results[1]]['mAP'] == 0
