"""Our parts in four detectors of mmdet, trained and used by mmdet's own tools; run by hand.

    /elsewhere/venv/bin/python tests/roads/other_detectors.py [NAME ...] [--folder DIR]

The Python is one with a wheel of ours and its extras ``[openmmlab,lite-weights]``; nothing of the
clone is imported. Each config (`road_configs.py`) is what a person would write: a base of
``mmdet::``, our backbone and neck, our losses and assigner where its head takes them. It is trained
for 5 steps on a small COCO set that is made here, resumed for 5 more, tested, given images by
``init_detector``, and loaded by ``load_from``. Prints one line for each detector; exit code 1 if a
step of one has failed.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from road_configs import CLASSES, CONFIGS

TRAIN, VAL, BATCH, SIDE = 10, 4, 2, 160
STEPS = TRAIN // BATCH
# Our package first, as docs/use_one_part.md says: with mmcv-lite, mmdet's tools need it.
FIRST = (
    'import effdet_plugin, runpy, sys; sys.argv = sys.argv[1:]; '
    'runpy.run_path(sys.argv[0], run_name="__main__")'
)
INFER = """
import sys, effdet_plugin
from mmdet.apis import inference_detector, init_detector
model = init_detector(sys.argv[1], sys.argv[2], device='cpu')
found = inference_detector(model, sys.argv[3:])
boxes = [sample.pred_instances.bboxes for sample in found]
assert all(box.isfinite().all() for box in boxes)
print('images', len(found), 'boxes', sum(map(len, boxes)), model.dataset_meta['classes'])
"""
LOSS = re.compile(r'Epoch\(train\) +\[(\d+)\]\[ *(\d+)/.*? loss: ([\d.]+|nan|inf)')
AP = re.compile(r'bbox_mAP: (-?[\d.]+)')


class RoadError(Exception):
    """A step of a road went wrong; the text says which and how."""


def make_data(folder: Path) -> None:
    """Draw images with a square and a disc each; write them and two COCO jsons."""
    rng = np.random.default_rng(0)
    for split, count in (('train', TRAIN), ('val', VAL)):
        (folder / split).mkdir(parents=True)
        images, annotations = [], []
        for number in range(count):
            image = np.full((SIDE, SIDE, 3), 90, np.uint8)
            for kind in range(len(CLASSES)):
                side = int(rng.integers(50, 70))
                x, y = (int(v) for v in rng.integers(4, SIDE - side - 4, 2))
                draw(image, kind, x, y, side)
                box = dict(id=len(annotations) + 1, image_id=number, category_id=kind + 1)
                annotations.append(box | dict(bbox=[x, y, side, side], area=side**2, iscrowd=0))
            cv2.imwrite(str(folder / split / f'{number}.png'), image)
            images.append(dict(id=number, file_name=f'{number}.png', width=SIDE, height=SIDE))
        categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
        data = dict(images=images, annotations=annotations, categories=categories)
        (folder / f'{split}.json').write_text(json.dumps(data))


def draw(image: np.ndarray, kind: int, x: int, y: int, side: int) -> None:
    """Draw a square (0) or a disc (1) whose box begins at x, y."""
    if kind == 0:
        cv2.rectangle(image, (x, y), (x + side, y + side), (40, 40, 220), -1)
    else:
        cv2.circle(image, (x + side // 2, y + side // 2), side // 2, (220, 160, 30), -1)


class Road:
    """One detector: its config, its folder, and the steps."""

    def __init__(self, name: str, folder: Path, tools: Path) -> None:
        self.folder, self.tools = folder, tools
        self.config = folder / f'{name}.py'
        self.config.write_text(CONFIGS[name])
        self.work = folder / f'{name}_run'
        self.loaded = folder / f'{name}_loaded'

    def python(self, what: str, *words: object) -> str:
        """Run this Python outside the clone; return what it prints."""
        command = [sys.executable, '-W', 'ignore', *map(str, words)]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=900, check=False
        )
        text = done.stdout + done.stderr
        (self.folder / f'{self.config.stem}_{what}.log').write_text(text)
        if done.returncode:
            raise RoadError(f'{what}: exit code {done.returncode}: {text.strip().splitlines()[-1]}')
        return text

    def tool(self, what: str, name: str, *words: object) -> str:
        """Run one of mmdet's own tools."""
        return self.python(what, '-c', FIRST, self.tools / name, *words)

    def train(self, what: str, work: Path, *options: str, resume: bool = False) -> list[float]:
        """Train; return the losses of the steps."""
        words = [self.config, '--work-dir', work, *(['--resume'] if resume else [])]
        text = self.tool(
            what, 'train.py', *words, *(['--cfg-options', *options] if options else [])
        )
        steps = [(int(e), int(s), float(loss)) for e, s, loss in LOSS.findall(text)]
        epoch = 2 if resume else 1
        if [(e, s) for e, s, _ in steps] != [(epoch, i + 1) for i in range(STEPS)]:
            raise RoadError(f'{what}: steps {[(e, s) for e, s, _ in steps]}')
        losses = [loss for *_, loss in steps]
        if not np.isfinite(losses).all():
            raise RoadError(f'{what}: losses {losses}')
        return losses

    def run(self) -> str:
        """Go the whole road; return what was seen, in a line."""
        first = self.train('train', self.work)
        second = self.train('resume', self.work, 'train_cfg.max_epochs=2', resume=True)
        checkpoint = self.work / 'epoch_2.pth'
        if load(checkpoint)['meta']['iter'] != 2 * STEPS:
            raise RoadError(f'resume: {load(checkpoint)["meta"]["iter"]} steps in the checkpoint')
        changed = difference(self.work / 'epoch_1.pth', checkpoint)
        if changed == 0:
            raise RoadError('resume: no weight has changed')
        if not (found := AP.findall(self.tool('test', 'test.py', self.config, checkpoint))):
            raise RoadError('test: no bbox_mAP')
        images = sorted((self.folder / 'val').glob('*.png'))
        boxes = self.python('infer', '-c', INFER, self.config, checkpoint, *images)
        # At a rate of 0 the weights that come out are those that went in.
        self.train(
            'load_from', self.loaded, f'load_from={checkpoint}', 'optim_wrapper.optimizer.lr=0'
        )
        if moved := difference(checkpoint, self.loaded / 'epoch_1.pth'):
            raise RoadError(f'load_from: weights differ by {moved:.2g}')
        return (
            f'train {first[0]:.3f} -> {first[-1]:.3f}, resume {second[0]:.3f} -> {second[-1]:.3f}, '
            f'AP {found[-1]}, {boxes.strip().splitlines()[-1]}, load_from equal'
        )


def load(path: Path) -> dict:
    """Read a checkpoint as torch does by default: tensors and plain values only."""
    return torch.load(path, map_location='cpu', weights_only=True)


def difference(one: Path, other: Path) -> float:
    """Largest difference of two checkpoints' weights; statistics of BN are not among them."""
    states = [load(path)['state_dict'] for path in (one, other)]
    if states[0].keys() != states[1].keys():
        raise RoadError(f'{one.name} and {other.name} have other weights')
    names = [name for name in states[0] if name.endswith(('.weight', '.bias', '.scale'))]
    return max(float((states[0][n] - states[1][n]).abs().max()) for n in names)


def main() -> int:
    """Go the roads; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument('names', nargs='*', metavar='NAME', help=', '.join(CONFIGS))
    parser.add_argument('--folder', type=Path, help='folder for data and logs (default: a new one)')
    args = parser.parse_args()
    import mmdet

    import effdet_plugin

    folder = (args.folder or Path(tempfile.mkdtemp(prefix='roads-'))).resolve()
    make_data(folder)
    print(f'effdet_plugin {effdet_plugin.__version__} of {effdet_plugin.__path__[0]}; {folder}')
    tools = Path(mmdet.__path__[0]) / '.mim' / 'tools'
    failed = 0
    for name in args.names or CONFIGS:
        start = time.monotonic()
        try:
            line = Road(name, folder, tools).run()
        except RoadError as error:
            line, failed = f'FAILED {error}', failed + 1
        print(f'{name}: {line} ({time.monotonic() - start:.0f} s)', flush=True)
    return int(failed > 0)


if __name__ == '__main__':
    sys.exit(main())
