"""Count parameters and multiply-adds of networks, beside those of the reference (google/automl).

Networks are built on the meta device: nothing is downloaded, and weights take no memory.

    %(prog)s                                     # all 15 networks at 90 classes
    %(prog)s d0_coco --classes 80 --image-size 1920x1280
    %(prog)s --markdown                          # the table of the README
    %(prog)s --plot models.png                   # AP over parameters and multiply-adds
    %(prog)s d0_coco d1_coco --latency --threads 1    # and their time on this machine
"""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from effdet_plugin.cli.options import add_config_options
from effdet_plugin.errors import ConfigError
from effdet_plugin.shipped_configs import ROOT, config_path

_ROUNDS = 5  # of --latency; D7x takes seconds on a CPU


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add('configs', nargs='*', type=Path, help='config files (default: all 15 networks)')
    add('--classes', type=int, default=90, help='number of classes (%(default)s)')
    add_config_options(parser)
    add('--plot', type=Path, metavar='FILE', help='also draw AP over the costs, as a .png')
    add('--latency', action='store_true', help='also time each network with one image')
    add('--threads', type=int, help='for --latency: number of threads of a CPU')
    add('--device', help='for --latency: cpu, cuda, ... (default: the fastest available one)')
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--json', action='store_true', help='print JSON')
    form.add_argument('--markdown', action='store_true', help='print a Markdown table')


def run(args: Namespace) -> None:
    """Count and print."""
    from effdet_plugin import cost_plot, costs

    if args.plot:
        cost_plot.check_plot_file(args.plot)
    if (args.threads or args.device) and not args.latency:
        raise ConfigError('--threads and --device are for --latency: give that, too')
    configs = [config_path(one) for one in args.configs] or costs.reference_configs(ROOT)
    rows = costs.count_rows(configs, args.classes, args.image_size, args.cfg_options)
    place = ''
    if args.latency:
        times, place = _time(configs, args)
        rows = [replace(row, latency_ms=ms) for row, ms in zip(rows, times, strict=True)]
    if args.plot:
        cost_plot.plot_costs(rows, args.plot, place)
    if args.json:
        print(json.dumps([row.to_dict() for row in rows], indent=2))
    elif args.markdown:
        print(costs.to_markdown(costs.readme_table(rows)))
    else:
        print(costs.to_text(costs.model_table(rows)))


def _time(configs: Sequence[Path], args: Namespace) -> tuple[list[float], str]:
    from effdet_plugin.benchmark import Settings
    from effdet_plugin.benchmark.network import latencies

    settings = Settings(
        models=['none'],
        rounds=_ROUNDS,
        threads=args.threads,
        device=args.device,
        image_size=args.image_size,
        options=args.cfg_options,
    )
    return latencies(configs, settings)
