#!/usr/bin/env python3
"""Write a checkpoint of random weights whose class scores are spread as a trained network's.

benchmarks/spread_logits.py d0_coco d0_spread.pth         # about 40 pairs above a score of 0.05

Fresh weights score every anchor at 0.01, so that no candidate passes a score threshold and
post-processing costs nothing. Here BN has the statistics of scenes, and the class layer's weights
are scaled until COUNT (anchor, class) pairs of the first rendered scene pass 0.05; the bias stays
at -4.6. A Lite0 trained on such scenes has 16 to 60. The network's time does not depend on
its weights.
"""

import argparse
import math
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effdet_plugin.files import RGBImage
    from effdet_plugin.inference import Detector

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tools'))
from _bootstrap import run

SCORE_THR, SCENES = 0.05, 1


def main() -> None:
    """Scale, count and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config')
    parser.add_argument('out', type=Path)
    parser.add_argument('--count', type=int, default=40, help='(%(default)s)')
    args = parser.parse_args()

    import torch

    from effdet_plugin.config.embedded import embed
    from effdet_plugin.demo import scene
    from effdet_plugin.files import replacing
    from effdet_plugin.inference import Detector

    detector = Detector(
        args.config, 'none', 'cpu', batch_size=SCENES, options={'model.backbone.pretrained': False}
    )
    images = [scene(0, 'val', number)[0] for number in range(SCENES)]
    take_statistics(detector, images)
    head = detector.model.bbox_head
    layer = getattr(head.cls_tower.predict, 'pointwise', head.cls_tower.predict)
    spread: list[float] = []  # of each image, how far its COUNT-th best pair is above the bias

    def note(_: object, __: object, found: tuple[list[torch.Tensor], list[torch.Tensor]]) -> None:
        logits = torch.cat([x.flatten(1) for x in found[0]], 1)
        spread.extend((logits.topk(args.count)[0][:, -1] - layer.bias[0]).tolist())

    hook = head.register_forward_hook(note)
    detector(images)
    needed = math.log(SCORE_THR / (1 - SCORE_THR)) - float(layer.bias[0])
    with torch.no_grad():
        layer.weight.mul_(needed / statistics.median(spread))
    found = detector(images)
    hook.remove()
    counts = [int((sample.pred_instances.scores > SCORE_THR).sum()) for sample in found]
    meta = {
        'dataset_meta': {'classes': list(detector.classes)},
        'config': embed(detector.config),
    }
    with replacing(args.out) as part, part.open('wb') as file:
        torch.save({'state_dict': detector.model.state_dict(), 'meta': meta}, file)
    print(f'{args.out}: detections above {SCORE_THR} after NMS in {SCENES} scene(s): {counts}')


def take_statistics(detector: 'Detector', images: list['RGBImage']) -> None:
    """Give every BN the statistics of images: with fresh ones the maps fade out."""
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [x for x in detector.model.modules() if isinstance(x, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    detector.model.train()
    for norm in norms:
        norm.momentum = 1.0  # of the last batch alone
    detector(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    detector.model.eval()


if __name__ == '__main__':
    run(main)
