#!/usr/bin/env python3
"""Memory of a training step of each network, and the images that fit: a Markdown table.

benchmarks/memory_table.py [d0 d4 lite0 ...] [--gpus 8 24]

The figures of docs/memory.md: GB of a step, fixed and for each image, by switch; then the images
that fit into a GPU without, with the first and with the second switch. What torch allocates grows
with the number of pixels, so that it is counted at two small sizes, on a CPU in float32, and
carried on to the network's own size.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tools'))
from _bootstrap import run

SIZES = 256, 384
SWITCHES = {
    'none': None,
    '`recompute_norm_act`': 'model.recompute_norm_act',
    '`with_cp`': 'model.with_cp',
}
IMAGES = 2  # of a counted step: BN of a map of one position needs two
SHARE = 0.9  # of a GPU: its driver and the allocator's gaps take the rest
NETWORKS = [*(f'd{i}' for i in range(8)), 'd7x']


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('networks', nargs='*', default=NETWORKS)
    parser.add_argument('--gpus', type=float, nargs='+', default=[8, 16, 24, 80], help='GB each')
    args = parser.parse_args()
    gpus = [f'{gpu:g} GB' for gpu in args.gpus]
    print('| network |', ' | '.join([*map(str, SWITCHES), *gpus]), '|')
    print('| :-- |', ' | '.join(['--:'] * (len(SWITCHES) + len(gpus))), '|')
    for name in args.networks:
        found = [gigabytes(name, switch) for switch in SWITCHES.values()]
        cells = [f'{fixed:.2f} + {each:.2f}' for fixed, each in found]
        for gpu in args.gpus:
            fits = (max(0, int((SHARE * gpu - fixed) / each)) for fixed, each in found)
            cells.append(' / '.join(map(str, fits)))
        print('|', ' | '.join([name, *cells]), '|', flush=True)


def gigabytes(name: str, switch: str | None) -> tuple[float, float]:
    """Return what a step of a network takes for itself, and for each image of its own size."""
    from effdet_plugin.config import find_sizes, load, path

    few, many = (largest(name, switch, size) for size in SIZES)
    pixels = [IMAGES * size**2 for size in SIZES]
    slope = (many - few) / (pixels[1] - pixels[0])
    _, (height, width) = next(find_sizes(load(path(name))))
    return few - slope * pixels[0], slope * height * width


def largest(name: str, switch: str | None, size: int) -> float:
    """Return the GB that a step of `IMAGES` images allocates at most, weights included."""
    from effdet_plugin.benchmark import Settings
    from effdet_plugin.benchmark.train_worker import Subject, Variant

    settings = Settings(
        models=['none'],
        config=f'{name}_coco',
        image_size=size,
        device='cpu',
        options=['model.backbone.pretrained=False'],
    )
    subject = Subject(Variant('', channels_last=True, switch=switch), settings, IMAGES)
    subject.step()  # after which the optimizer has its state
    network = subject.trainer.network
    # Weights and momentum, and the moving average of the weights: three times the weights.
    kept = 3 * sum(one.numel() * one.element_size() for one in network.state_dict().values())
    return kept / 2**30 + subject.memory()['largest'] / 2**10


if __name__ == '__main__':
    run(main)
