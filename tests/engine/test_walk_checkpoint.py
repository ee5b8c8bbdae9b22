"""How many files of the package a reader opens to follow a checkpoint into the model."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope, init_default_scope

from effdet_plugin.config import load
from effdet_plugin.engine.load_weights import classes_of
from effdet_plugin.engine.runner import EfficientDetRunner
from effdet_plugin.training import TestSettings, evaluate

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / 'effdet_plugin'
CONFIG = REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py'
NOT_COUNTED = ('models', 'ops', 'task_modules')  # what is loaded, not what loads it
OPTIONS = {
    'model.backbone.pretrained': False,
    'model.bbox_head.num_classes': 1,
    'test_dataloader.num_workers': 0,
    'test_dataloader.persistent_workers': False,
}


def file_of(frame: FrameType) -> str | None:
    """The package file of a function's frame; None for others, and for imports."""
    path = Path(frame.f_code.co_filename)
    if not path.is_relative_to(PACKAGE) or frame.f_code.co_name == '<module>':
        return None
    own = path.relative_to(PACKAGE)
    return None if own.parts[0] in NOT_COUNTED else own.as_posix()


@contextmanager
def walk(files: set[str | None]) -> Iterator[None]:
    """Add the files whose functions run inside, and those whose functions led here."""
    caller: FrameType | None = sys._getframe(1)
    while caller is not None:
        files.add(file_of(caller))
        caller = caller.f_back
    sys.setprofile(lambda frame, event, _: files.add(file_of(frame)) if event == 'call' else None)
    try:
        yield
    finally:
        sys.setprofile(None)


def test_walk__counts_functions_that_run() -> None:
    files: set[str | None] = set()
    with walk(files):
        pass
    assert files == {None}
    with walk(files):
        classes_of({})
    assert files == {None, 'engine/load_weights.py'}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / '1.png'), np.full((48, 64, 3), 40, np.uint8))
    box = dict(id=1, image_id=1, category_id=3, bbox=[8, 8, 24, 20], area=480, iscrowd=0)
    document = dict(
        images=[dict(id=1, file_name='1.png', width=64, height=48)],
        annotations=[box],
        categories=[dict(id=3, name='circle')],
    )
    (tmp_path / 'val.json').write_text(json.dumps(document))
    return tmp_path / 'val.json'


def test_checkpoint__reaches_the_model_through_at_most_six_files(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As tools/test.py loads it, checked and matched by the hooks."""
    files: set[str | None] = set()
    loaded: list[dict[str, Any]] = []
    load_or_resume: Callable[[Any], None] = EfficientDetRunner.load_or_resume

    def load_and_walk(runner: Any) -> None:
        with walk(files):
            load_or_resume(runner)
        loaded.append(runner.model.state_dict())

    init_default_scope('mmdet')
    model = MODELS.build(load(CONFIG, options=OPTIONS).model)
    weights = {name: torch.full_like(tensor, 0.5) for name, tensor in model.state_dict().items()}
    meta = dict(dataset_meta=dict(classes=('circle',)))
    torch.save(dict(meta=meta, state_dict=weights), tmp_path / 'one.pth')

    monkeypatch.setattr(EfficientDetRunner, 'load_or_resume', load_and_walk)
    settings = TestSettings(
        CONFIG, str(tmp_path / 'one.pth'), data=data, image_size=64, cfg_options=OPTIONS
    )
    evaluate(settings)
    assert all(torch.equal(loaded[0][name], tensor) for name, tensor in weights.items())
    files.discard(None)
    assert {'files.py', 'engine/load_weights.py', 'engine/runner.py'} <= files
    assert len(files) <= 6, sorted(map(str, files))
    DefaultScope._instance_dict.clear()
