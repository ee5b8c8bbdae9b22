#!/usr/bin/env python3
"""Time of a training step with random images: fp32, channels_last and autocast, in turns.

benchmarks/train_step.py d0_coco --device cuda --batch 16
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tools'))
from _bootstrap import run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('config')
    add('--device', default='cuda', help='(%(default)s)')
    add('--batch', type=int, default=4, help='images per step (%(default)s)')
    add('--rounds', type=int, default=10, help='(%(default)s)')
    add('--image-size')
    add('--json', type=Path, metavar='F')
    args = parser.parse_args()

    import torch
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    from effdet_plugin.benchmark.machine import describe, in_words
    from effdet_plugin.benchmark.report import Measure, Report
    from effdet_plugin.benchmark.timing import TOTAL, Stopwatch, in_turns
    from effdet_plugin.config import find_sizes, parse_size
    from effdet_plugin.costs import to_text
    from effdet_plugin.files import write_atomically
    from effdet_plugin.trained_model import device_of, load_trained

    device = device_of(args.device)
    plain = ['model.backbone.pretrained=False']
    calls = {}
    for form in ('fp32', 'channels_last', 'channels_last bf16'):
        trained = load_trained(
            args.config, 'none', device, image_size=args.image_size, options=plain
        )
        size = parse_size(next(find_sizes(trained.config.test_dataloader))[1])
        model = trained.model.train()
        if 'channels_last' in form:
            model.channels_last = True
            model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
        images = torch.randn(args.batch, 3, *size, device=device)
        samples = []
        for _ in range(args.batch):
            corner = torch.rand(10, 2, device=device) * min(size) / 2
            boxes = torch.cat([corner, corner + min(size) / 4], 1)
            labels = torch.randint(0, len(trained.classes), (10,), device=device)
            sample = DetDataSample(metainfo={'batch_input_shape': size, 'img_shape': size})
            sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
            samples.append(sample)

        def step(
            watch: Stopwatch,
            model: torch.nn.Module = model,
            optimizer: torch.optim.Optimizer = optimizer,
            images: torch.Tensor = images,
            samples: list[DetDataSample] = samples,
            is_half: bool = 'bf16' in form,
        ) -> None:
            with (
                torch.inference_mode(False),
                torch.enable_grad(),
                torch.autocast(device.type, torch.bfloat16, enabled=is_half),
            ):
                losses = model(images, samples, mode='loss')
                sum(value for key, value in losses.items() if 'loss' in key).backward()
            watch.lap('forward and backward')
            optimizer.step()
            optimizer.zero_grad()
            watch.lap('optimizer')

        calls[form] = step
    figures = in_turns(calls, args.rounds, device)
    name = Path(args.config).stem
    measures = [
        Measure(f'train/b{args.batch}/{name} {form}', parts[TOTAL], args.batch)
        for form, parts in figures.items()
    ]
    for measure in measures[1:]:
        measure.against = measures[0].name
    report = Report(describe(device, torch.get_num_threads()), measures)
    print(in_words(report.machine))
    print(to_text(report.table()))
    if args.json:
        write_atomically(args.json, report.to_json() + '\n')


if __name__ == '__main__':
    run(main)
