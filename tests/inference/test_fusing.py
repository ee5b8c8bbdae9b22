import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effdet_plugin.errors import DatasetError
from effdet_plugin.inference.fusing import evaluate_files, fuse_files, fuse_rows
from effdet_plugin.testing import load_oracle

Row = dict[str, Any]


def row(image: int, box: list[float], score: float, category: int = 1) -> Row:
    return dict(image_id=image, category_id=category, bbox=box, score=score)


def write(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_fuse_rows__equals_the_reference() -> None:
    oracle = load_oracle('wbf')
    rows, expected = oracle['in_b'], oracle['out_b']
    own = [
        row(
            int(r[0]), [*map(float, (r[1], r[2], r[3] - r[1], r[4] - r[2]))], float(r[5]), int(r[6])
        )
        for r in rows
    ]
    fused = fuse_rows([own[0::3], own[1::3], own[2::3]])
    boxes = np.array([f['bbox'] for f in fused])
    boxes[:, 2:] += boxes[:, :2]
    np.testing.assert_allclose(boxes, expected[:, 1:5], atol=1e-4)
    assert [f['category_id'] for f in fused] == expected[:, 6].tolist()


def test_fuse_files__pictures_apart_and_the_best_only(tmp_path: Path) -> None:
    a = [row(1, [0, 0, 10, 10], 0.9), row(2, [0, 0, 10, 10], 0.8), row(2, [50, 50, 9, 9], 0.3)]
    b = [row(1, [0, 0, 10, 10], 0.7)]
    paths = [write(tmp_path / 'a.json', a), write(tmp_path / 'b.json', b)]
    assert fuse_files(paths, tmp_path / 'out' / 'fused.json', max_per_image=1) == 2
    fused = json.loads((tmp_path / 'out' / 'fused.json').read_text())
    assert [f['image_id'] for f in fused] == [1, 2]
    assert [f['score'] for f in fused] == pytest.approx([0.8, 0.4])


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ({'images': []}, 'no list of detections'),
        ([dict(image_id=1, category_id=1, score=0.5)], "detection 0 has no 'bbox'"),
        ([row(7, [0, 0, 1, 1], 0.5)], 'no picture in common'),
    ],
)
def test_fuse_files__refuses_what_is_no_result_file(
    tmp_path: Path, content: object, words: str
) -> None:
    good = write(tmp_path / 'good.json', [row(1, [0, 0, 10, 10], 0.9)])
    bad = write(tmp_path / 'bad.json', content)
    with pytest.raises(DatasetError, match=f'bad.json: .*{words}'):
        fuse_files([good, bad], tmp_path / 'fused.json')


def test_evaluate_files__gives_the_12_numbers_of_each(tmp_path: Path) -> None:
    truth = dict(
        images=[dict(id=1, file_name='1.jpg', width=64, height=64)],
        annotations=[
            dict(id=1, image_id=1, category_id=1, bbox=[5, 5, 20, 20], area=400, iscrowd=0)
        ],
        categories=[dict(id=1, name='a')],
    )
    results = [
        write(tmp_path / 'right.json', [row(1, [5, 5, 20, 20], 0.9)]),
        write(tmp_path / 'wrong.json', [row(1, [40, 40, 20, 20], 0.9)]),
    ]
    numbers = dict(evaluate_files(write(tmp_path / 'truth.json', truth), results))
    assert numbers[results[0]]['mAP'] == pytest.approx(1.0)
    assert numbers[results[1]]['mAP'] == 0
