#!/usr/bin/env python3
"""``efficientdet export`` of this clone; see ``effdet_plugin/cli/export.py``."""

from _bootstrap import command, run

main = command('export')

if __name__ == '__main__':
    run(main)
