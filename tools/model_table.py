#!/usr/bin/env python3
"""Count parameters and multiply-adds of networks, beside those of the reference (google/automl).

Networks are built on the meta device: nothing is downloaded, and weights take no memory.

    tools/model_table.py                                     # all 15 networks at 90 classes
    tools/model_table.py configs/efficientdet/d0_coco.py --classes 80 --image-size 1920x1280
    tools/model_table.py --markdown                          # the table of the README
"""

import json
from argparse import Namespace
from pathlib import Path

from _bootstrap import ROOT, add_config_options, make_parser, run


def parse_args() -> Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add('configs', nargs='*', type=Path, help='config files (default: all 15 networks)')
    add('--classes', type=int, default=90, help='number of classes (%(default)s)')
    add_config_options(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--json', action='store_true', help='print JSON')
    form.add_argument('--markdown', action='store_true', help='print a Markdown table')
    return parser.parse_args()


def main() -> None:
    """Count and print."""
    args = parse_args()
    from effdet_plugin import costs

    configs = args.configs or costs.reference_configs(ROOT)
    rows = costs.count_rows(configs, args.classes, args.image_size, args.cfg_options)
    if args.json:
        print(json.dumps([row.to_dict() for row in rows], indent=2))
    elif args.markdown:
        print(costs.to_markdown(costs.readme_table(rows)))
    else:
        print(costs.to_text(costs.model_table(rows)))


if __name__ == '__main__':
    run(main)
