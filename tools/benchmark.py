#!/usr/bin/env python3
"""``efficientdet benchmark`` of this clone; see ``effdet_plugin/cli/benchmark.py``."""

from _bootstrap import command, run

main = command('benchmark')

if __name__ == '__main__':
    run(main)
