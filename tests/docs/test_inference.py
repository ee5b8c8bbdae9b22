"""The page on inference is executed, with an image and a video of the test's own."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from effdet_plugin.files import read_json, write_image
from effdet_plugin.inference.video_file import file_class, writing_video
from support import REPOSITORY

PAGE = REPOSITORY / 'docs' / 'inference.md'
BLOCK = re.compile(r'^```(python|bash)\n(.*?)^```', re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_inference__the_page_runs(tmp_path: Path) -> None:
    write_image(tmp_path / 'a.jpg', np.full((40, 60, 3), 90, np.uint8))
    video = tmp_path / f'b{file_class().suffix}'
    with writing_video(video, 10) as file:
        for number in range(14):
            file.write(np.full((40, 64, 3), 10 * number, np.uint8), number / 10)
    for name in ('tools', 'configs', 'effdet_plugin'):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    blocks = BLOCK.findall(PAGE.read_text())
    assert [kind for kind, _ in blocks] == ['bash', 'bash', 'python']
    said = []
    for kind, text in blocks:
        text = text.replace('IMAGE', 'a.jpg').replace('VIDEO', video.name)
        words = ['-c', text] if kind == 'python' else shlex.split(text.replace('\\\n', ' '))[1:]
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env={'PYTHONPATH': str(tmp_path), 'PATH': '/usr/bin:/bin', 'OMP_NUM_THREADS': '1'},
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        said.append(done.stdout)
    assert '1 image' in said[0]
    assert f'{video.name}: 6 frames' in said[1]
    assert '1 image' in said[2]
    assert read_json(tmp_path / 'out' / 'predictions.json') == []
