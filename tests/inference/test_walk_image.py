"""How many files of the package a reader opens to follow an image to its detections."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch

import effdet_plugin
from effdet_plugin.files import write_image
from effdet_plugin.inference import Detector
from support import REPOSITORY

PACKAGE = Path(effdet_plugin.__file__).parent
CONFIG = REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py'
# The networks themselves are no part of the way, imports neither (compat.py finds modules).
LEFT_OUT = {'models', 'ops', 'task_modules', 'compat.py'}


def files_of(run: Callable[[], object]) -> set[str]:
    """Return the files of the package in which a function runs."""
    found: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == 'call' and frame.f_code.co_name != '<module>' and PACKAGE in path.parents:
            found.add(path.relative_to(PACKAGE).as_posix())

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return {file for file in found if file.split('/')[0] not in LEFT_OUT}


@pytest.fixture(scope='module')
def walk(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files from ``Detector(config, checkpoint)`` to the detections of an image."""
    folder = tmp_path_factory.mktemp('walk')
    model = Detector(CONFIG, 'none').model
    meta = {'dataset_meta': {'classes': tuple(map(str, range(80)))}}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, folder / 'a.pth')
    write_image(folder / 'a.png', np.zeros((40, 60, 3), np.uint8))
    return files_of(lambda: Detector(CONFIG, folder / 'a.pth')(folder / 'a.png'))


def test_walk__an_image_beside_the_config(walk: set[str]) -> None:
    beside = {file for file in walk if not file.startswith('config/')}
    assert {'files.py', 'inference/detector.py', 'datasets/transforms.py'} <= beside
    # The fifth is weights_only.py: what a file of weights may hold.
    assert len(beside) <= 5, sorted(beside)


@pytest.mark.xfail(reason='the config takes more than 3 files', strict=True)
def test_walk__an_image(walk: set[str]) -> None:
    assert len(walk) <= 7, sorted(walk)
