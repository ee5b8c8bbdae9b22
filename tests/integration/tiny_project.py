"""A network of 100,000 parameters, ten images of 64x64, and a training of 4 epochs of 4 steps."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from command_lines import REPOSITORY

EPOCHS, STEPS = 4, 4
SIDE = 64
CLASSES = ('light', 'dark')
# Inner parts keep the base's settings. Drop-connect, flips, jitter and the moving average are on.
CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['effdet_plugin', 'fault_hook'], allow_failed_imports=False)
image_size = ({side}, {side})
classes = {classes!r}
data_root = {folder!r}
model = dict(
    backbone=dict(model_name='test_efficientnet', pretrained=False, drop_path_rate=0.2),
    neck=dict(in_channels=[32, 48, 64], out_channels=16, num_cells=1),
    bbox_head=dict(num_classes=len(classes), in_channels=16, stacked_convs=1),
)
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    dataset=dict(
        image_size=image_size,
        dataset=dict(
            data_root=data_root, ann_file='train.json', data_prefix=dict(img='images/'),
            metainfo=dict(classes=classes),
        ),
    ),
)
val_dataloader = test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        image_size=image_size,
        dataset=dict(
            data_root=data_root, ann_file='val.json', data_prefix=dict(img='images/'),
            metainfo=dict(classes=classes),
        ),
    ),
)
val_evaluator = test_evaluator = dict(ann_file=data_root + 'val.json')
train_cfg = dict(max_epochs={epochs}, val_interval=2)
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(interval=1, max_keep_ckpts=3),
    fault=dict(type='FaultHook'),
)
log_processor = dict(window_size=1)
report = False
randomness = dict(seed=3)
"""
Curve = dict[int, float]


@dataclass(frozen=True)
class Project:
    """Where the config and the data of the tiny training are."""

    folder: Path
    config: Path

    @property
    def image(self) -> Path:
        """One of the images."""
        return self.folder / 'images' / '0.png'

    def variant(self, name: str, text: str) -> Path:
        """Write a config that says what it has otherwise than the project's."""
        path = self.folder / f'{name}.py'
        path.write_text(f"_base_ = './{self.config.name}'\n{text}\n")
        return path


def write_project(folder: Path) -> Project:
    """Draw the images, and write annotations and config."""
    (folder / 'images').mkdir()
    _write_set(folder, 'train', range(EPOCHS * 2))
    _write_set(folder, 'val', range(EPOCHS * 2, EPOCHS * 2 + 2))
    base = str(REPOSITORY / 'configs' / 'efficientdet' / 'd0_coco.py')
    text = CONFIG.format(base=base, side=SIDE, classes=CLASSES, folder=f'{folder}/', epochs=EPOCHS)
    (folder / 'run.py').write_text(text)
    return Project(folder, folder / 'run.py')


def _write_set(folder: Path, name: str, numbers: range) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in numbers:
        image = np.random.default_rng(number).integers(90, 160, (SIDE, SIDE, 3), dtype=np.uint8)
        x, y, label = 4 + 3 * number, 30 - 2 * number, number % 2
        image[y : y + 24, x : x + 28] = 20 + 220 * (1 - label)
        cv2.imwrite(str(folder / 'images' / f'{number}.png'), image)
        images.append(dict(id=number, file_name=f'{number}.png', width=SIDE, height=SIDE))
        box = dict(bbox=[x, y, 28, 24], area=28 * 24, iscrowd=0, category_id=label + 1)
        annotations.append(dict(id=number + 1, image_id=number, **box))
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, start=1)]
    document = dict(images=images, annotations=annotations, categories=categories)
    (folder / f'{name}.json').write_text(json.dumps(document))


def rows(work_dir: Path) -> list[dict[str, Any]]:
    """What the runs of a work dir have logged at their steps, in order."""
    found: list[dict[str, Any]] = []
    for log in sorted(work_dir.glob('*/vis_data/scalars.json')):
        found += [json.loads(line) for line in log.read_text().splitlines()]
    return [row for row in found if 'loss' in row]


def curve(logged: list[dict[str, Any]]) -> Curve:
    """Step -> loss; a repeated step counts as it was the last time."""
    return {row['step']: row['loss'] for row in logged}


def must_equal(found: Curve, expected: Curve, first: int, last: int = EPOCHS * STEPS) -> None:
    """The losses of the steps from ``first`` on are there, and the same to 1e-4."""
    steps = list(range(first, last + 1))
    assert sorted(found) == steps, f'these steps were done, not {steps}: {found}'
    worst = max(abs(found[step] / expected[step] - 1) for step in found)
    assert worst < 1e-4, f'the losses differ by {worst:.2e}: {found} {expected}'


def load(path: Path) -> dict[str, Any]:
    """A checkpoint as plain data."""
    return torch.load(path, weights_only=True)


def must_end_equally(work_dir: Path, expected: Path) -> None:
    """The last checkpoints' weights and their moving averages are the same to 1e-4."""
    ours, theirs = (load(folder / f'epoch_{EPOCHS}.pth') for folder in (work_dir, expected))
    assert ours['meta']['iter'] == EPOCHS * STEPS
    for part in ('state_dict', 'ema_state_dict'):
        assert ours.get(part, {}).keys() == theirs.get(part, {}).keys()
        for name, value in theirs.get(part, {}).items():
            same = torch.allclose(ours[part][name].double(), value.double(), rtol=1e-4, atol=1e-4)
            assert same, f'{part} {name}'


def must_be_whole(work_dir: Path) -> None:
    """Every checkpoint of a work dir is readable and finite; there is one at least."""
    paths = sorted(path for path in work_dir.glob('*.pth') if path.name[0] != '.')
    assert paths, f'{work_dir} holds no checkpoint'
    for path in paths:
        checkpoint = load(path)
        for part in ('state_dict', 'ema_state_dict'):
            for name, value in checkpoint.get(part, {}).items():
                assert value.isfinite().all(), f'{path}: {part} {name}'
