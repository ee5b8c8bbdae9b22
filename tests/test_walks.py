"""How many files of the package one reads to follow a task from its start to its end."""

import json
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from mmengine.config import Config
from PIL import Image

import effdet_plugin
from effdet_plugin.own_data import apply_data

PACKAGE = Path(effdet_plugin.__file__).parent
# The network itself is no part of a walk.
LEFT_OUT = ('models', 'ops', 'task_modules')


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
    inside = [
        Path(name).relative_to(PACKAGE) for name in walked if Path(name).is_relative_to(PACKAGE)
    ]
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
    assert len(walked) <= 18, walked
