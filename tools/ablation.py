#!/usr/bin/env python3
"""The paper's comparisons of backbones, feature networks and fusions: their cost, or a training.

    tools/ablation.py                                # tables 4, 5 and 6: cost, latency in one run
    tools/ablation.py --rounds 0 --markdown          # the cost alone
    tools/ablation.py --train --data DIR --epochs 15 configs/ablation/lite0_*.py

Without a GPU the latency is that of 256x256, unless --image-size says otherwise.
--train trains every config with every seed by one recipe. A finished cell is not run again, one
that was stopped goes on. The picture of AP against multiply-adds is in --work-dir.
"""

import argparse
from pathlib import Path

from _bootstrap import ROOT, run


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('configs', nargs='*', type=Path, help='configs; none: the tables of the paper')
    add('--classes', type=int, default=90, help='number of classes for the cost (%(default)s)')
    add('--rounds', type=int, default=5, help='of the latency, 0 for none (%(default)s)')
    add('--image-size', help="640 or WIDTHxHEIGHT in place of each config's own")
    add('--device', help='cpu or cuda, for the latency')
    add('--markdown', action='store_true', help='print a Markdown table')
    add('--cfg-options', nargs='+', action='extend', default=[], metavar='KEY=VALUE')
    train = parser.add_argument_group('training')
    train.add_argument('--train', action='store_true', help='train and evaluate, on --data')
    train.add_argument('--data', type=Path, help='own data: a folder, or an annotation file')
    train.add_argument('--seeds', type=int, nargs='+', default=[0, 1], help='(0 1)')
    train.add_argument('--epochs', type=int, help="in place of the configs'")
    train.add_argument('--work-dir', type=Path, default=Path('work_dirs/ablation'))
    args = parser.parse_args()
    if args.train and args.data is None:
        parser.error('--train needs --data DIR')
    return args


def main() -> None:
    """Print the table of costs, or train."""
    args = parse_args()
    if args.train:
        train(args)
        return
    from effdet_plugin.ablation import ablation_configs, count_rows, measure_configs, to_cells

    configs = args.configs or ablation_configs(ROOT)
    rows = count_rows(configs, args.classes, args.image_size, args.cfg_options)
    latencies = None
    if args.rounds > 0:
        note, latencies = measure_configs(
            configs, args.rounds, args.device, args.image_size, args.cfg_options
        )
        print(note)
    show(to_cells(rows, latencies), args.markdown)


def train(args: argparse.Namespace) -> None:
    """Train what is not finished, show what is, and draw it."""
    from effdet_plugin.ablation import (
        CellSettings,
        ablation_configs,
        plot_quality,
        quality_cells,
        run_cells,
    )

    cells = list(
        run_cells(
            CellSettings(
                configs=args.configs or ablation_configs(ROOT),
                data=args.data,
                work_dir=args.work_dir,
                seeds=args.seeds,
                epochs=args.epochs,
                image_size=args.image_size,
                options=args.cfg_options,
            )
        )
    )
    plot_quality(cells, args.work_dir / 'ablation.png')
    show(quality_cells(cells), args.markdown)
    print(f'The picture is {args.work_dir / "ablation.png"}')


def show(cells: list[list[str]], markdown: bool) -> None:
    """Print a table."""
    from effdet_plugin.ablation import to_markdown, to_text

    print(to_markdown(cells) if markdown else to_text(cells))


if __name__ == '__main__':
    run(main)
