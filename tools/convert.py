#!/usr/bin/env python3
"""``efficientdet convert`` of this clone; see ``effdet_plugin/cli/convert.py``."""

from _bootstrap import command, run

main = command('convert')

if __name__ == '__main__':
    run(main)
