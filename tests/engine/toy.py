"""A small training that uses everything of the engine: seeded images, BN, drop-connect.

Each run is a process of its own, so that it can be killed, and several can run together.
"""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATASETS, HOOKS, METRICS, MODELS, RUNNERS
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import nn

CLASSES = ('a', 'b', 'c')
LOSSES = 'losses.jsonl'


@DATASETS.register_module()
class ToyImages(torch.utils.data.Dataset):
    """Images that are a function of (seed, epoch, index)."""

    def __init__(
        self,
        length: int = 12,
        seed: int | None = None,
        poison: int = -1,
        classes: tuple[str, ...] = CLASSES,
    ) -> None:
        self.length, self.seed, self.poison = length, seed, poison
        self.metainfo = {'classes': tuple(classes)}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        generator = np.random.default_rng((self.seed or 0, epoch, index))
        image = torch.from_numpy(generator.normal(size=(3, 6, 6)).astype(np.float32))
        if index == self.poison:
            image.fill_(float('nan'))
        sample = BaseDataElement(metainfo={'img_path': f'images/{index}.jpg', 'img_id': index})
        return {'inputs': image, 'data_samples': sample}


@MODELS.register_module()
class ToyNet(BaseModel):
    """Convolution, BN, drop-connect, and a class predictor of the head's name and form."""

    def __init__(self, num_classes: int = 3, survival: float = 0.7) -> None:
        super().__init__()
        self.survival = survival
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.bbox_head = nn.Module()
        self.bbox_head.num_classes = num_classes
        self.bbox_head.cls_tower = nn.Module()
        self.bbox_head.cls_tower.predict = nn.ModuleDict(
            {
                'depthwise': nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
                'pointwise': nn.Conv2d(8, 2 * num_classes, 1),
            }
        )

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        """Mean-square loss against the image's mean, or the samples themselves."""
        inputs = torch.stack(list(inputs))
        x = self.backbone(inputs)
        if mode == 'predict':
            return data_samples
        keep = torch.rand(x.shape[0], 1, 1, 1) < self.survival
        x = x * keep / self.survival
        for part in self.bbox_head.cls_tower.predict.values():
            x = part(x)
        return {'loss': (x - inputs.mean()).square().mean()}


@METRICS.register_module()
class SeenImages(BaseMetric):
    """Which images an evaluation has counted, and how often."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += [sample['img_id'] for sample in data_samples]

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        return {'seen': len(results), 'distinct': len(set(results)), 'sum': sum(results)}


@HOOKS.register_module()
class WriteLosses(Hook):
    """Appends each step's loss and rate to a file, and stops the process where it is told."""

    priority = 'LOWEST'

    def __init__(self, file: str, kill_at: int = -1) -> None:
        self.file, self.kill_at = file, kill_at

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        rate = runner.optim_wrapper.get_lr()['lr'][0]
        record = {'step': runner.iter, 'loss': float(outputs['loss'].detach()), 'lr': rate}
        with Path(self.file).open('a') as file:
            file.write(json.dumps(record) + '\n')
        if runner.iter + 1 == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def toy_config(work_dir: Path, **changes: Any) -> Config:
    """Four epochs of six steps, in the shape of our real configs."""

    def loader(**more: Any) -> dict[str, Any]:
        dataset = {'type': 'ToyImages', **more.pop('dataset', {})}
        return {'batch_size': 2, 'num_workers': 0, 'dataset': dataset, **more}

    config = Config(
        {
            'default_scope': 'mmdet',
            'runner_type': 'EfficientDetRunner',
            'work_dir': str(work_dir),
            'model': {'type': 'ToyNet'},
            'train_dataloader': loader(
                num_workers=2, persistent_workers=True, sampler={'type': 'EpochSampler'}
            ),
            'val_dataloader': loader(sampler={'type': 'DefaultSampler', 'shuffle': False}),
            'val_evaluator': {'type': 'SeenImages'},
            'train_cfg': {'type': 'EpochBasedTrainLoop', 'max_epochs': 4},
            'val_cfg': {'type': 'ValLoop'},
            'optim_wrapper': {
                'type': 'ClippedOptimWrapper',
                'optimizer': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'weight_decay': 1e-3},
                'constructor': 'GroupedOptimWrapperConstructor',
                'paramwise_cfg': {'norm_decay_mult': 0},
            },
            'param_scheduler': [{'type': 'ReferenceLR', 'convert_to_iter_based': True}],
            'default_hooks': {
                'runtime_info': {'type': 'DeferredRuntimeInfoHook'},
                'logger': {'type': 'LoggerHook', 'interval': 2},
                'checkpoint': {
                    'type': 'AtomicCheckpointHook',
                    'max_keep_ckpts': 2,
                    'save_best': 'seen',
                    'rule': 'greater',
                },
            },
            'custom_hooks': [
                {'type': 'RampUpEMAHook', 'momentum': 0.01},
                {'type': 'LoadMatchingHook'},
                {'type': 'FiniteLossHook'},
                {'type': 'WriteLosses', 'file': str(work_dir / LOSSES)},
            ],
            'log_level': 'WARNING',
            'randomness': {'seed': 3},
        }
    )
    config.merge_from_dict(changes)
    return config


def train(config: Config) -> Any:
    """Train in this process and return the runner."""
    runner = RUNNERS.build(config)
    runner.train()
    return runner


def losses_of(work_dir: Path) -> dict[int, tuple[float, float]]:
    """Loss and rate of each step of a run (of the last time where it was done twice)."""
    records = [json.loads(line) for line in (work_dir / LOSSES).read_text().splitlines()]
    return {record['step']: (record['loss'], record['lr']) for record in records}
