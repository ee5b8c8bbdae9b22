"""Count parameters and multiply-adds of networks, beside those of the reference (google/automl).

Networks are built on the meta device: nothing is downloaded, and weights take no memory.

    %(prog)s                                     # all 15 networks at 90 classes
    %(prog)s d0_coco --classes 80 --image-size 1920x1280
    %(prog)s --markdown                          # the table of the README
    %(prog)s --plot models.png                   # AP over parameters and multiply-adds
"""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from effdet_plugin.cli.options import add_config_options
from effdet_plugin.shipped_configs import ROOT, config_path


def add_arguments(parser: ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add('configs', nargs='*', type=Path, help='config files (default: all 15 networks)')
    add('--classes', type=int, default=90, help='number of classes (%(default)s)')
    add_config_options(parser)
    add('--plot', type=Path, metavar='FILE', help='also draw AP over both costs, as a .png')
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--json', action='store_true', help='print JSON')
    form.add_argument('--markdown', action='store_true', help='print a Markdown table')


def run(args: Namespace) -> None:
    """Count and print."""
    from effdet_plugin import cost_plot, costs

    if args.plot:
        cost_plot.check_plot_file(args.plot)
    configs = [config_path(one) for one in args.configs] or costs.reference_configs(ROOT)
    rows = costs.count_rows(configs, args.classes, args.image_size, args.cfg_options)
    if args.plot:
        cost_plot.plot_costs(rows, args.plot)
    if args.json:
        print(json.dumps([row.to_dict() for row in rows], indent=2))
    elif args.markdown:
        print(costs.to_markdown(costs.readme_table(rows)))
    else:
        print(costs.to_text(costs.model_table(rows)))
