#!/usr/bin/env python3
"""``efficientdet check`` of this clone; see ``effdet_plugin/cli/check.py``."""

from _bootstrap import command, run

main = command('check')

if __name__ == '__main__':
    run(main)
