"""Time networks, files, detectors, training steps and loaders in turns.

    %(prog)s network best.pth best.onnx best.xml --threads 1
    %(prog)s network d0_coco none --against effdet --forms fast compiled
    %(prog)s end2end best.pth best.onnx --images DIR --json figures.json
    %(prog)s train d0_coco none --batch 4 --threads 2 --against effdet
    %(prog)s memory d4_coco none --batch 1 --forms channels_last recompute checkpoint
    %(prog)s postprocess d0_coco none --threads 1 --against effdet
    %(prog)s loader d0_coco --data DIR --batch 8 --against effdet --step-ms 1200

network: forms of the network (eager, channels_last, folded, fast = both, bf16 and compiled fast
ones), with post-processing (hard, soft) where the head is ours, and exported files with what they
contain. Outputs are compared first. end2end: files to detections, with their parts. train: a
training step on random images, from pixels to the update (forms eager, channels_last, bf16, and
recompute and checkpoint, which keep fewer maps). memory: what such a step allocates, and its time.
postprocess: from the head's maps to detections, of a scene with objects and of flat maps.
loader: the training pipeline from files to batches in one thread, its parts, and how many workers
feed a step.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from effdet_plugin.cli.model_words import add_model, check_is_there
from effdet_plugin.cli.options import add_config_options
from effdet_plugin.errors import ConfigError
from effdet_plugin.shipped_configs import is_config

MODES = ('network', 'end2end', 'train', 'memory', 'postprocess', 'loader')
FORMS = (
    *('eager', 'channels_last', 'folded', 'fast', 'bf16', 'fp16', 'compiled', 'recompute'),
    'checkpoint',
)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add('mode', choices=MODES, metavar='MODE', help=' or '.join(MODES))
    add_model(parser, several=True)
    add('--images', nargs='+', default=[], help='image files or folders (default: rendered scenes)')
    add('--batch', nargs='+', type=int, default=[1, 8], help='images per call (1 8)')
    add('--rounds', type=int, default=15, help='timed calls of each (%(default)s)')
    add('--threads', type=int, help="number of CPU threads (default: torch's)")
    add('--device', help='cpu, cuda, ... (default: the fastest available one)')
    add('--forms', nargs='+', choices=FORMS, help='forms of a checkpoint; compiled takes minutes')
    add('--nms', nargs='+', choices=('hard', 'soft'), default=['hard', 'soft'], help='(hard soft)')
    add('--score-thr', type=float, default=0.05, help='of post-processing (%(default)s)')
    add('--against', choices=('effdet',), help='also time effdet with the same weights')
    add('--data', type=Path, help='loader: own data, folder or annotation file')
    add('--step-ms', type=float, metavar='MS', help='loader: time of a training step to be fed')
    add('--json', type=Path, metavar='F', help='write the figures')
    add_config_options(parser)


def complete(words: Sequence[str]) -> list[str]:
    """Return the words with ``none`` as MODEL of `loader`, which needs only a CONFIG."""
    given = list(words)
    at = next((i for i, word in enumerate(given) if is_config(word)), None)
    mode = next((word for word in given if word in MODES), None)
    if mode == 'loader' and at is not None and given[at + 1 : at + 2] != ['none']:
        given.insert(at + 1, 'none')
    return given


def run(args: Namespace) -> None:
    """Measure and print."""
    for model in args.model:
        check_is_there(model)
    from effdet_plugin import benchmark
    from effdet_plugin.benchmark.machine import in_words
    from effdet_plugin.costs import to_text
    from effdet_plugin.files import write_atomically

    if args.mode != 'loader' and (args.data is not None or args.step_ms is not None):
        raise ConfigError(f'benchmark {args.mode}: --data and --step-ms are for the mode loader')
    settings = benchmark.Settings(
        models=args.model,
        config=args.config,
        images=args.images,
        batches=args.batch,
        rounds=args.rounds,
        threads=args.threads,
        device=args.device,
        forms=tuple(args.forms or benchmark.DEFAULT_FORMS),
        against=args.against,
        image_size=args.image_size,
        options=args.cfg_options,
        score_thr=args.score_thr,
        data=args.data,
        step_ms=args.step_ms,
        nms=tuple('gaussian' if name == 'soft' else name for name in args.nms),
    )
    report = benchmark.run(args.mode, settings, tell)
    tell('')
    print(in_words(report.machine))
    print(to_text(report.table()))
    print('\n'.join(report.notes))
    if args.json:
        write_atomically(args.json, report.to_json() + '\n')
        print(f'figures: {args.json}')


def tell(text: str) -> None:
    """Show on a terminal what is being done, in one line."""
    if sys.stderr.isatty():
        print(f'\r\033[K{text[:100]}', end='', file=sys.stderr, flush=True)
