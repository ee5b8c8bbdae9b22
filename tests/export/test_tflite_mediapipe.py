"""Files of ours in MediaPipe Tasks: its Python package, and its web runtime in a browser."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from tflite_support import (
    CLASSES,
    MEDIAPIPE,
    SIZE,
    Files,
    as_mediapipe,
    found_again,
    images,
    needs_mediapipe,
    needs_packages,
)

from effdet_plugin.files import write_image
from support import REPOSITORY

pytestmark = needs_packages
# MediaPipe's detections of the images in an archive, as JSON: it needs an environment of its own.
DETECT = """
import json, sys
import mediapipe as mp, numpy as np
from mediapipe.tasks.python import BaseOptions, vision
options = vision.ObjectDetectorOptions(base_options=BaseOptions(model_asset_path=sys.argv[1]))
with vision.ObjectDetector.create_from_options(options) as detector:
    images = np.load(sys.argv[2])
    found = [detector.detect(mp.Image(mp.ImageFormat.SRGB, images[name])) for name in images.files]
rows = [[(d.bounding_box.origin_x, d.bounding_box.origin_y, d.bounding_box.width,
          d.bounding_box.height, c.score, c.category_name)
         for d in one.detections for c in d.categories] for one in found]
print(json.dumps(rows))
"""
PIXEL = 1.01  # of a number without what is after its point


def of_mediapipe(path: Path, batch: list[np.ndarray], folder: Path) -> list[list[Any]]:
    """MediaPipe's detections: ``([x, y, width, height], score, name)``."""
    np.savez(folder / 'images.npz', *batch)
    command = [str(MEDIAPIPE), '-c', DETECT, str(path), str(folder / 'images.npz')]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    return [[(row[:4], *row[4:]) for row in one] for one in found]


@needs_mediapipe
@pytest.mark.parametrize(
    ('name', 'px', 'score'),
    [
        ('postprocess_fp32', PIXEL, 1e-3),
        # Their kernels round another way: scores differ by one or two of the 256 steps.
        ('postprocess_int8', 4.0, 4 / 256),
    ],
)
def test_python__the_same_detections(
    files: Files, tmp_path: Path, name: str, px: float, score: float
) -> None:
    # Of the input's size: random weights amplify a grey level by which samplers differ.
    batch = images(size=SIZE)
    theirs = of_mediapipe(files[name], batch, tmp_path)
    for one, other in zip(as_mediapipe(files[name], batch), theirs, strict=True):
        assert len(one) == len(other) > 10
        assert {label for _, _, label in other} <= set(CLASSES)
        assert found_again(one, other, px, score) >= (0.99 if name.endswith('fp32') else 0.95)


@needs_mediapipe
def test_python__raw(files: Files, tmp_path: Path) -> None:
    for one in of_mediapipe(files['raw_fp32'], images(size=SIZE), tmp_path):  # its own NMS
        assert one
        assert {label for _, _, label in one} <= set(CLASSES)


DEMO = REPOSITORY / 'docs' / 'demo'
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
ROW = re.compile(r'<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>')


@pytest.fixture
def site(files: Files, tmp_path: Path) -> Iterator[str]:
    """The demo with a file and an image, at an address of this machine."""
    folder = tmp_path / 'site'
    folder.mkdir()
    for name in ('index.html', 'demo.js', 'assets'):
        (folder / name).symlink_to(DEMO / name)
    shutil.copy(files['postprocess_fp32'], folder / 'model.tflite')
    write_image(folder / 'image.png', images(1, SIZE)[0])
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_address[1]}/index.html'
        server.shutdown()


@pytest.mark.skipif(
    not (DEMO / 'assets').is_dir(), reason='needs docs/demo/assets: bash tools/setup.sh --mediapipe'
)
@pytest.mark.skipif(CHROMIUM is None, reason='needs chromium (Debian: apt-get install chromium)')
def test_browser__the_same_detections(files: Files, site: str, tmp_path: Path) -> None:
    command = [
        str(CHROMIUM), '--headless=new', '--no-sandbox', '--disable-gpu', '--dump-dom',
        '--virtual-time-budget=120000', f'--user-data-dir={tmp_path}/profile',
        f'{site}?image=image.png&threshold=0.01',
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    status = re.search(r'id="status"[^>]*>(.*?)<', done.stdout)
    assert status is not None, done.stderr[-2000:]
    assert status[1].startswith('100 detections'), status[1]
    theirs = []
    for name, score, text in ROW.findall(done.stdout):
        x, y, width, height = map(float, text.split(', '))
        theirs.append(([x, y, width, height], float(score), name))
    (own,) = as_mediapipe(files['postprocess_fp32'], images(1, SIZE))
    assert found_again(own, theirs, PIXEL, 1e-3) >= 0.99
