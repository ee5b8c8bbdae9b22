#!/usr/bin/env python3
"""Write files of all formats and compare them with PyTorch: size, largest difference, speed.

benchmarks/export_table.py best.pth --images DIR --out work_dirs/export --rounds 9
benchmarks/export_table.py d0_coco none --image-size 256 --count 4 --ends raw soft --out /tmp/d0
benchmarks/export_table.py best.pth --images DIR --files best_int8.onnx best_fp16.onnx

Exit code 1 if a file is over its bounds. With --rounds the files are timed in turns, each call with
one image on one thread, in ms of CPU.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tools'))
from _bootstrap import add_config_options, add_model, make_parser, parse_model_args, run


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add_model(parser)
    add('--formats', nargs='*', default=['onnx', 'openvino', 'pt2'], help='(%(default)s)')
    add('--ends', nargs='*', default=['hard', 'soft'], help='hard, soft, decoded or raw')
    add('--files', nargs='+', type=Path, default=[], help='compare these; nothing is written')
    add('--out', type=Path, help='folder to keep the files in')
    add('--images', type=Path, help="folder of images (default: the config's, else drawn ones)")
    add('--count', type=int, default=20, help='number of images (%(default)s)')
    add('--batch', nargs='+', type=int, default=[1, 4], help='images per call (1 4)')
    add('--score-thr', type=float, help="score threshold (default: the config's)")
    add('--rounds', type=int, default=0, help='timed calls of each file (0: none)')
    add('--markdown', action='store_true', help='print the table as Markdown')
    add_config_options(parser)
    return parse_model_args(parser)


def main() -> int:
    """Write, compare, time, print."""
    args = parse_args()
    import torch

    from effdet_plugin.benchmark import Settings
    from effdet_plugin.benchmark.network import measure
    from effdet_plugin.costs import to_markdown, to_text
    from effdet_plugin.export.acceptance import HEADER, examine, write_files
    from effdet_plugin.export.api import Options
    from effdet_plugin.export.images import images_of
    from effdet_plugin.trained_model import load_trained

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    torch.set_num_threads(1)
    trained = load_trained(
        args.config, args.model, 'cpu', image_size=args.image_size, options=args.cfg_options
    )
    with TemporaryDirectory() as folder:
        options = Options(score_thr=args.score_thr)
        files = args.files or write_files(
            trained, args.out or Path(folder), args.formats, args.ends, options, tell
        )
        images = images_of(trained.config, args.images, args.count, 'test')
        rows = list(examine(files, trained, images, args.batch, 1, tell))
        if args.rounds:
            settings = Settings(
                models=[args.model, *map(str, files)],
                config=args.config,
                batches=[1],
                rounds=args.rounds,
                threads=1,
                device='cpu',
                forms=('eager', 'fast'),
                image_size=args.image_size,
                options=args.cfg_options,
                score_thr=args.score_thr,
            )
            report = measure(settings, tell)
            times = {m.name.split('/')[2]: m.figures.to_dict()['cpu_ms'] for m in report.measures}
            rows = [
                replace(row, timing=f'{times[row.path.name]:.1f}' if row.batch == 1 else '')
                for row in rows
            ]
            for name, value in times.items():
                print(f'{name}: {value:.1f} ms of CPU')
        table = [HEADER, *(row.cells() for row in rows)]
    print(to_markdown(table) if args.markdown else to_text(table))
    return int(any(row.failure for row in rows))


if __name__ == '__main__':
    run(main)
