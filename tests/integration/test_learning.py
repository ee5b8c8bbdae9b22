"""The networks learn: eight images until they are overfitted; from random weights a little."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from effdet_plugin.training import TrainSettings, train
from support import REPOSITORY, shared_data

CONFIGS = REPOSITORY / 'configs' / 'efficientdet'


@pytest.fixture(autouse=True)
def _all_threads() -> Iterator[None]:
    """The rest of the suite computes on one thread, since the parity ladder needs that."""
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '2')))
    yield
    torch.set_num_threads(before)


def eight_images(folder: Path) -> Path:
    """COCO json of 8 images, a crowd and one without boxes among them.

    The others are those with three objects or more of which the smallest is largest: they can be
    learnt at 128 px, which takes a fifth of the time of 320 px.
    """
    source = shared_data('coco_train_mini')
    data = json.loads((source / 'annotations' / 'instances_train.json').read_text())
    smallest: dict[int, float] = {}
    counts: Counter[int] = Counter()
    longest = {image['id']: max(image['width'], image['height']) for image in data['images']}
    for one in data['annotations']:
        image = one['image_id']
        counts[image] += 1
        side = min(one['bbox'][2:]) / longest[image]
        smallest[image] = min(side, smallest.get(image, 1.0))
    crowded = {a['image_id'] for a in data['annotations'] if a['iscrowd']}
    by_size = sorted(smallest, key=lambda image: -smallest[image])
    chosen = {next(image for image in longest if image not in counts)}
    chosen.add(next(image for image in by_size if image in crowded))
    chosen.update([i for i in by_size if counts[i] >= 3 and i not in crowded][:6])
    data['images'] = [image for image in data['images'] if image['id'] in chosen]
    data['annotations'] = [a for a in data['annotations'] if a['image_id'] in chosen]
    assert len(data['images']) == 8
    path = folder / 'eight.json'
    path.write_text(json.dumps(data))
    return path


def data_options(annotations: Path, loader: str) -> dict[str, Any]:
    images = next(p for p in shared_data('coco_train_mini').iterdir() if p.name != 'annotations')
    name = f'{loader}_dataloader.dataset.dataset'
    return {
        f'{name}.data_root': '',
        f'{name}.ann_file': str(annotations),
        f'{name}.data_prefix': {'img': f'{images if images.is_dir() else images.parent}/'},
        f'{loader}_dataloader.num_workers': 0,
        f'{loader}_dataloader.persistent_workers': False,
    }


def scalars(work_dir: Path, key: str) -> list[float]:
    rows = [
        json.loads(line)
        for log in work_dir.glob('*/vis_data/scalars.json')
        for line in log.read_text().splitlines()
    ]
    return [row[key] for row in rows if key in row]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_lite0__overfits_eight_images(tmp_path: Path) -> None:
    annotations = eight_images(tmp_path)
    steps = 150
    options = {
        **data_options(annotations, 'train'),
        **data_options(annotations, 'val'),
        'val_evaluator.ann_file': str(annotations),
        'model.bbox_head.num_classes': 80,
        # No jitter and no flip.
        'train_dataloader.dataset.pipeline': [
            {'type': 'LoadImageFromFile'},
            {'type': 'ToRGB'},
            {'type': 'LoadAnnotations', 'with_bbox': True},
            {'type': 'LetterBox', 'resize_dtype': 'float32'},
            {'type': 'PackDetInputs'},
        ],
        'train_cfg': {'max_epochs': steps, 'val_interval': steps},
        'param_scheduler.0.warmup_epochs': 5,
        'custom_hooks': [],
        'default_hooks.checkpoint.interval': steps,
    }
    train(
        TrainSettings(
            CONFIGS / 'custom_coco.py',
            work_dir=tmp_path / 'run',
            image_size=128,
            seed=0,
            cfg_options=options,
        )
    )
    assert scalars(tmp_path / 'run', 'coco/bbox_mAP_50')[-1] >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_d0__twenty_steps_from_random_weights(tmp_path: Path) -> None:
    annotations = shared_data('coco_train_mini') / 'annotations' / 'instances_train.json'
    options = {
        **data_options(annotations, 'train'),
        'train_dataloader.batch_size': 5,  # 104 images: 20 steps
        'val_dataloader': None,
        'val_cfg': None,
        'val_evaluator': None,
        'model.backbone.pretrained': False,
        'train_cfg': {'type': 'EpochBasedTrainLoop', 'max_epochs': 1},
        # The recipe's warm-up is an epoch of COCO: in 20 steps of it nothing could be learned.
        'optim_wrapper.optimizer.lr': 0.02,
        'auto_scale_lr.enable': False,
        'param_scheduler.0.warmup_epochs': 0,
        'param_scheduler.0.decay': 'constant',
        'default_hooks.logger.interval': 1,
        'log_processor.window_size': 1,
        'default_hooks.checkpoint.save_best': None,
    }
    train(
        TrainSettings(
            CONFIGS / 'd0_coco.py',
            work_dir=tmp_path / 'run',
            image_size=256,  # at the config's 512 the loss falls, too, in four times the time
            cfg_options=options,
        )
    )
    losses = scalars(tmp_path / 'run', 'loss')
    assert len(losses) == 20
    assert sum(losses[-5:]) < sum(losses[:5])
