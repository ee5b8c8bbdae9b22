"""Files of ours in MediaPipe Tasks: its Python package, and its web runtime in a browser."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from tflite_support import CLASSES, SIZE, Files, found_again, images, needs_packages, rows_of

from effdet_plugin.files import write_image
from effdet_plugin.inference import Detector
from support import REPOSITORY

pytestmark = needs_packages
MEDIAPIPE = Path(os.environ.get('EFFDET_MEDIAPIPE', REPOSITORY / '.venv-mediapipe')) / 'bin/python'
# MediaPipe's detections of the images in an archive, as JSON: it needs an environment of its own.
DETECT = """
import json, sys
import mediapipe as mp, numpy as np
from mediapipe.tasks.python import BaseOptions, vision
options = vision.ObjectDetectorOptions(
    base_options=BaseOptions(model_asset_path=sys.argv[1]), max_results=25)
with vision.ObjectDetector.create_from_options(options) as detector:
    images = np.load(sys.argv[2])
    found = [detector.detect(mp.Image(mp.ImageFormat.SRGB, images[name])) for name in images.files]
rows = [[(d.bounding_box.origin_x, d.bounding_box.origin_y, d.bounding_box.width,
          d.bounding_box.height, c.score, c.category_name)
         for d in one.detections for c in d.categories] for one in found]
print(json.dumps(rows))
"""


@pytest.mark.skipif(
    not MEDIAPIPE.exists(), reason='needs MediaPipe: bash tools/setup.sh --mediapipe'
)
@pytest.mark.parametrize('name', ['postprocess_fp32', 'postprocess_int8', 'raw_fp32'])
def test_python__the_same_detections(files: Files, tmp_path: Path, name: str) -> None:
    batch = images(size=SIZE)
    np.savez(tmp_path / 'images.npz', *batch)
    command = [str(MEDIAPIPE), '-c', DETECT, str(files[name]), str(tmp_path / 'images.npz')]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = [
        [([x, y, x + w, y + h], score, label) for x, y, w, h, score, label in one]
        for one in json.loads(done.stdout.splitlines()[-1])
    ]
    assert all(theirs)
    assert {label for one in theirs for _, _, label in one} <= set(CLASSES)
    if name.startswith('raw'):  # MediaPipe's own NMS
        return
    detector = Detector(files[name], max_per_img=25)
    for one, other in zip(rows_of(detector, batch), theirs, strict=True):
        # It rounds boxes and moves those that begin outside, whose size it keeps.
        inside = [row for row in one if min(row[0][:2]) > 0]
        assert found_again(inside, other, 2.0, 2e-3) >= 0.95


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
        theirs.append(([x, y, x + width, y + height], float(score), name))
    (own,) = rows_of(Detector(files['postprocess_fp32']), images(1, SIZE))
    inside = [row for row in own if min(row[0][:2]) > 0]
    assert len(inside) > 10
    assert found_again(inside, theirs, 2.0, 1e-3) >= 0.95
