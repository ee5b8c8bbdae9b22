#!/usr/bin/env python3
"""``efficientdet test`` of this clone; see ``effdet_plugin/cli/test.py``."""

from _bootstrap import command, run

main = command('test')

if __name__ == '__main__':
    run(main)
