#!/usr/bin/env python3
"""The paper's ablations of backbones, feature networks and fusions: costs, latency, trainings.

    tools/ablation.py                                # tables 4, 5 and 6: costs and latency
    tools/ablation.py --rounds 0 --markdown          # costs only
    tools/ablation.py --train --data DIR --epochs 15 configs/ablation/lite0_*.py

Without a GPU the latency is measured at 256x256 unless --image-size is given.
--train trains every config with every seed by one recipe. Finished trials are skipped, interrupted
ones resumed. A plot of AP against multiply-adds is written to --work-dir.
"""

from argparse import Namespace
from pathlib import Path

from _bootstrap import ROOT, add_config_options, make_parser, run


def parse_args() -> Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add('configs', nargs='*', type=Path, help="config files (default: the paper's tables)")
    add('--classes', type=int, default=90, help='number of classes for the costs (%(default)s)')
    add('--rounds', type=int, default=5, help='timed runs of each, 0 for none (%(default)s)')
    add('--device', help='device for the latency, cpu or cuda')
    add('--markdown', action='store_true', help='print a Markdown table')
    add_config_options(parser)
    train = parser.add_argument_group('training')
    train.add_argument('--train', action='store_true', help='train and evaluate on --data')
    train.add_argument('--data', type=Path, help='own data: a folder or an annotation file')
    train.add_argument('--seeds', type=int, nargs='+', default=[0, 1], help='random seeds (0 1)')
    train.add_argument('--epochs', type=int, help="number of epochs, overrides the configs'")
    train.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/ablation'),
        help='folder for trainings and plot (%(default)s)',
    )
    args = parser.parse_args()
    if args.train and args.data is None:
        parser.error('--train needs --data DIR')
    return args


def main() -> None:
    """Print the table of costs, or train."""
    args = parse_args()
    from effdet_plugin.costs import to_markdown, to_text

    table = train(args) if args.train else costs(args)
    print(to_markdown(table) if args.markdown else to_text(table))


def costs(args: Namespace) -> list[list[str]]:
    """Count and time the networks; return the table."""
    from effdet_plugin.ablation import ablation_configs, cost_table, measure_configs
    from effdet_plugin.costs import count_rows

    configs = args.configs or ablation_configs(ROOT)
    rows = count_rows(configs, args.classes, args.image_size, args.cfg_options)
    latencies = None
    if args.rounds > 0:
        note, latencies = measure_configs(
            configs, args.rounds, args.device, args.image_size, args.cfg_options
        )
        print(note)
    return cost_table(rows, latencies)


def train(args: Namespace) -> list[list[str]]:
    """Run the trials that are not finished, plot all of them; return the table."""
    from effdet_plugin import ablation

    settings = ablation.TrialSettings(
        configs=args.configs or ablation.ablation_configs(ROOT),
        data=args.data,
        work_dir=args.work_dir,
        seeds=args.seeds,
        epochs=args.epochs,
        image_size=args.image_size,
        options=args.cfg_options or (),
    )
    trials = list(ablation.run_trials(settings))
    plot = args.work_dir / 'ablation.png'
    ablation.plot_quality(trials, plot)
    print(f'plot of AP against multiply-adds: {plot}')
    return ablation.quality_table(trials)


if __name__ == '__main__':
    run(main)
