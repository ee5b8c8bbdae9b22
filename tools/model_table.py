#!/usr/bin/env python3
"""Print parameters and multiply-adds of the networks, counted, beside the reference's figures.

Nothing is downloaded and no memory is taken: networks are built on the meta device.

    tools/model_table.py                                     # all 15 networks at 90 classes
    tools/model_table.py configs/efficientdet/d0_coco.py --classes 80 --image-size 1920x1280
    tools/model_table.py --markdown                          # the table of the README
"""

import argparse
import json
from pathlib import Path

from _bootstrap import ROOT, run


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='*', type=Path, help='configs; none: all 15 networks')
    parser.add_argument('--classes', type=int, default=90, help='number of classes (90)')
    parser.add_argument('--image-size', help='640 or WIDTHxHEIGHT in place of each own size')
    parser.add_argument('--cfg-options', nargs='+', action='extend', help='key=value ...')
    form = parser.add_mutually_exclusive_group()
    form.add_argument('--json', action='store_true', help='print json')
    form.add_argument('--markdown', action='store_true', help='print a Markdown table')
    return parser.parse_args()


def main() -> None:
    """Count and print."""
    args = parse_args()
    from effdet_plugin.benchmark.model_table import (
        count_row,
        reference_configs,
        to_markdown,
        to_text,
    )

    rows = [
        count_row(
            config,
            num_classes=args.classes,
            image_size=args.image_size,
            options=args.cfg_options,
        )
        for config in args.configs or reference_configs(ROOT)
    ]
    if args.json:
        print(json.dumps([row.to_dict() for row in rows], indent=2))
    else:
        print(to_markdown(rows) if args.markdown else to_text(rows))


if __name__ == '__main__':
    run(main)
