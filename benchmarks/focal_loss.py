#!/usr/bin/env python3
"""Time of our focal loss and effdet's, forward and backward: medians of rounds on one thread.

benchmarks/focal_loss.py                # D0's logits of four images of 512x512, 90 classes
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tools'))
from _bootstrap import run

IMAGES, ANCHORS, CLASSES = 4, 49_104, 90
ALPHA, GAMMA, POSITIVES = 0.25, 1.5, 200


def main() -> None:
    """Print both medians and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--rounds', type=int, default=9, help='(%(default)s)')
    rounds = parser.parse_args().rounds

    import torch

    from effdet_plugin.ops import sigmoid_focal_loss

    torch.set_num_threads(1)
    # After our import, which repairs a torchvision without compiled operators.
    from effdet.loss import new_focal_loss

    torch.manual_seed(0)
    logits = (torch.randn(IMAGES * ANCHORS, CLASSES) - 4).requires_grad_()
    labels = torch.full((len(logits),), CLASSES)
    labels[torch.randperm(len(logits))[:POSITIVES]] = torch.randint(0, CLASSES, (POSITIVES,))
    one_hot = torch.nn.functional.one_hot(labels, CLASSES + 1)[:, :CLASSES].float()

    def ours() -> torch.Tensor:
        return sigmoid_focal_loss(logits, labels, ALPHA, GAMMA).sum() / POSITIVES

    def theirs() -> torch.Tensor:
        return new_focal_loss(logits, one_hot, ALPHA, GAMMA, POSITIVES, label_smoothing=0.0).sum()

    losses: dict[str, Callable[[], torch.Tensor]] = {'ours': ours, 'effdet': theirs}
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(rounds):
        for name, loss in losses.items():
            logits.grad = None
            start = time.perf_counter()
            loss().backward()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(turns) for name, turns in seconds.items()}
    print(', '.join(f'{name} {median * 1000:.0f} ms' for name, median in medians.items()))
    print(f'effdet / ours: {medians["effdet"] / medians["ours"]:.2f}')
    torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=0)


if __name__ == '__main__':
    run(main)
