"""The page on inference is executed, with an image and a video of the test's own."""

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command_lines import Tools
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from effdet_plugin.files import read_json, write_image
from effdet_plugin.inference import to_dicts
from effdet_plugin.inference.video_file import file_class, writing_video
from support import REPOSITORY

PAGE = REPOSITORY / 'docs' / 'inference.md'
BLOCK = re.compile(r'^```(python|bash)\n(.*?)^```', re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_inference__the_page_runs(tools: Tools, tmp_path: Path) -> None:
    write_image(tmp_path / 'a.jpg', np.full((40, 60, 3), 90, np.uint8))
    video = tmp_path / f'b{file_class().suffix}'
    with writing_video(video, 10) as file:
        for number in range(14):
            file.write(np.full((40, 64, 3), 10 * number, np.uint8), number / 10)
    for name in ('tools', 'configs', 'effdet_plugin'):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    blocks = [block for block in BLOCK.findall(PAGE.read_text()) if 'dist_infer' not in block[1]]
    assert [kind for kind, _ in blocks] == ['bash', 'bash', 'bash', 'python']
    said = []
    for kind, text in blocks:
        text = text.replace('IMAGE', 'a.jpg').replace('VIDEO', video.name)
        words = ['-c', text] if kind == 'python' else shlex.split(text.replace('\\\n', ' '))[1:]
        tool = tmp_path / words[0] if kind == 'bash' else '-c'
        done = tools.start(tool, *words[1:], cwd=tmp_path).wait(280)
        assert done.code == 0, done
        said.append(done.out)
    assert '1 image' in said[0]
    assert f'{video.name}: 6 frames' in said[1]
    assert '1 image and 1 frame' in said[2]
    assert '1 image' in said[3]
    assert read_json(tmp_path / 'out' / 'predictions.json') == []


FOUND = InstanceData(
    bboxes=torch.tensor([[1.0, 2, 30, 40], [5, 6, 7, 8]]),
    scores=torch.tensor([0.75, 0.5]),
    labels=torch.tensor([1, 0]),
)


def converted(line: int, name: str, **names: Any) -> Any:
    """What a line of the page's last block makes of two detections."""
    (block,) = re.findall(r'^```\n(rows = .*?)^```', PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names['sample'] = DetDataSample(pred_instances=FOUND)
    names['detector'] = SimpleNamespace(classes=('cat', 'dog'))
    exec(block.splitlines()[line], names)
    return names[name]


def test_inference__results_as_plain_values() -> None:
    rows = converted(0, 'rows', to_dicts=to_dicts)
    assert rows == [
        {'box': [1, 2, 30, 40], 'score': 0.75, 'label': 1, 'name': 'dog'},
        {'box': [5, 6, 7, 8], 'score': 0.5, 'label': 0, 'name': 'cat'},
    ]
    assert json.loads(json.dumps(rows)) == rows


def test_inference__results_of_supervision() -> None:
    supervision = pytest.importorskip('supervision')
    detections = converted(1, 'detections', supervision=supervision)
    np.testing.assert_array_equal(detections.xyxy, FOUND.bboxes)
    np.testing.assert_array_equal(detections.confidence, FOUND.scores)
    np.testing.assert_array_equal(detections.class_id, FOUND.labels)
