"""How many files of the package one reads to follow a task from its start to its end."""

import inspect
import json
import sys
from collections.abc import Callable, Iterable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

import effdet_plugin
from effdet_plugin.config import load
from effdet_plugin.engine.runner import EfficientDetRunner
from effdet_plugin.files import write_image
from effdet_plugin.inference import Detector
from effdet_plugin.own_data import apply_data
from effdet_plugin.training import TestSettings, evaluate
from support import REPOSITORY

PACKAGE = Path(effdet_plugin.__file__).parent
# The network itself is no part of a walk, and compat.py only finds modules that are imported.
LEFT_OUT = ('models', 'ops', 'task_modules', 'compat.py')
CONFIG = REPOSITORY / 'configs' / 'efficientdet' / 'lite0_coco.py'


def walked_files(call: Callable[[], object]) -> list[str]:
    """The package files in which a function runs during a call, imports left out."""
    walked: set[str] = set()
    imports = 0  # modules that are being imported

    def watch(frame: FrameType, event: str, _: Any) -> None:
        nonlocal imports
        is_import = frame.f_code.co_name == '<module>'
        if event == 'call':
            imports += is_import
            if not imports:
                walked.add(frame.f_code.co_filename)
        elif event == 'return':
            imports -= is_import

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(before)
    return package_files(walked)


def package_files(names: Iterable[str]) -> list[str]:
    """Those of some files that count, relative to the package."""
    inside = {
        Path(name).relative_to(PACKAGE) for name in names if Path(name).is_relative_to(PACKAGE)
    }
    return sorted(path.as_posix() for path in inside if path.parts[0] not in LEFT_OUT)


def test_walked_files__counts_functions_and_no_imports() -> None:
    spec = spec_from_file_location('a_second_splits', PACKAGE / 'own_data' / 'splits.py')
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    # Importing runs comprehensions of the file, and those are no step of a walk.
    assert walked_files(lambda: spec.loader.exec_module(module)) == []
    assert walked_files(lambda: module.split_of_word('train')) == ['own_data/splits.py']
    assert walked_files(lambda: None) == []


def save_images(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(3):
        Image.new('RGB', (100, 50)).save(folder / f'{number}.jpg')


def yolo(root: Path) -> None:
    save_images(root / 'images')
    (root / 'labels').mkdir()
    for number in range(3):
        (root / f'labels/{number}.txt').write_text('0 0.5 0.5 0.4 0.4\n')
    (root / 'data.yaml').write_text('train: images\nnames: [circle]\n')


def yolo_without_description(root: Path) -> None:
    yolo(root)
    (root / 'data.yaml').unlink()
    (root / 'classes.txt').write_text('circle\n')


def voc(root: Path) -> None:
    save_images(root / 'JPEGImages')
    (root / 'Annotations').mkdir()
    box = '<xmin>30</xmin><ymin>15</ymin><xmax>70</xmax><ymax>35</ymax>'
    for number in range(3):
        (root / f'Annotations/{number}.xml').write_text(
            f'<annotation><object><name>circle</name><bndbox>{box}</bndbox></object></annotation>'
        )


def coco(root: Path) -> None:
    save_images(root / 'images')
    numbers = range(3)
    document = dict(
        images=[dict(id=i, file_name=f'{i}.jpg', width=100, height=50) for i in numbers],
        annotations=[dict(id=i, image_id=i, category_id=1, bbox=[30, 15, 40, 20]) for i in numbers],
        categories=[dict(id=1, name='circle')],
    )
    (root / 'annotations.json').write_text(json.dumps(document))


@pytest.mark.parametrize('build', [yolo, yolo_without_description, voc, coco])
def test_walk__own_data_folder_to_written_annotations(
    build: Callable[[Path], None], tmp_path: Path
) -> None:
    build(tmp_path / 'data')
    dataset = dict(type='EfficientDetDataset', dataset=dict(type='CocoDataset', pipeline=[]))
    loaders = {f'{name}_dataloader': dict(dataset=dataset) for name in ('train', 'val', 'test')}
    cfg = Config(dict(model=dict(bbox_head=dict(num_classes=90)), **loaders))
    walked = walked_files(lambda: apply_data(cfg, tmp_path / 'data', tmp_path / 'run'))
    written = json.loads((tmp_path / 'run/data/train.json').read_text())
    assert [len(written[key]) for key in ('images', 'annotations', 'categories')] == [2, 2, 1]
    assert len(walked) <= 15, walked


def test_walk__checkpoint_into_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As tools/test.py loads it: read, checked and matched by the hooks."""
    coco(tmp_path / 'data')
    options = {
        'model.backbone.pretrained': False,
        'model.bbox_head.num_classes': 1,
        'test_dataloader.num_workers': 0,
        'test_dataloader.persistent_workers': False,
    }
    init_default_scope('mmdet')
    model = MODELS.build(load(CONFIG, options=options).model)
    weights = {name: torch.full_like(tensor, 0.5) for name, tensor in model.state_dict().items()}
    meta = dict(dataset_meta=dict(classes=('circle',)))
    torch.save(dict(meta=meta, state_dict=weights), tmp_path / 'one.pth')

    walked: set[str] = set()
    loaded: dict[str, Any] = {}
    load_or_resume: Callable[[Any], None] = EfficientDetRunner.load_or_resume

    def load_and_watch(runner: Any) -> None:
        walked.update(walked_files(lambda: load_or_resume(runner)))
        walked.update(package_files(caller.filename for caller in inspect.stack()))
        loaded.update(runner.model.state_dict())

    monkeypatch.setattr(EfficientDetRunner, 'load_or_resume', load_and_watch)
    checkpoint = str(tmp_path / 'one.pth')
    evaluate(
        TestSettings(CONFIG, checkpoint, data=tmp_path / 'data', image_size=64, cfg_options=options)
    )
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())
    assert {'weights_only.py', 'engine/load_weights.py', 'engine/runner.py'} <= walked
    walked.remove('training/console.py')  # prints the line of the log
    assert len(walked) <= 5, sorted(walked)


def test_walk__image_to_detections(tmp_path: Path) -> None:
    model = Detector(CONFIG, 'none').model
    meta = {'dataset_meta': {'classes': tuple(map(str, range(80)))}}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, tmp_path / 'a.pth')
    write_image(tmp_path / 'a.png', np.zeros((40, 60, 3), np.uint8))
    walked = walked_files(lambda: Detector(CONFIG, tmp_path / 'a.pth')(tmp_path / 'a.png'))
    ends = {'trained_model.py', 'weights_only.py', 'images.py', 'datasets/transforms.py'}
    assert ends <= set(walked)
    assert len(walked) <= 7, walked
